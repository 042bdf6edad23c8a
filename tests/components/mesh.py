"""Says whether a set of objects, as a cluster holds them at one moment, could let a byte pass that it should not.

It reads the objects as Istio does and knows nothing of how they are built: routes, rules, servers and policies are found
by host, subset, selector and namespace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tests.components.recorder import Registration

IN_CLUSTER = "export.internal"
"""Domain of the hosts for what the ingress gateway reaches in its own cluster: the service itself, without TLS."""


class Mesh:
    """The objects of one moment. `final` are those of the finished stack: what is promised to be there."""

    def __init__(self, present: Iterable[Registration], final: Iterable[Registration]) -> None:
        self._present = list(present)
        self._final = list(final)

    def hazards(self) -> list[str]:
        """What is wrong with this moment."""
        return [
            *self._namespaces(),
            *self._claims(),
            *self._routes(),
            *self._known(),
            *self._servers(),
            *self._credentials(),
            *self._proxies(),
        ]

    def _of(self, kind: str, namespace: str | None = None, *, final: bool = False) -> Iterator[Registration]:
        for item in self._final if final else self._present:
            if item.kind == kind and namespace in (None, item.object[1]):
                yield item

    def _namespaces(self) -> Iterator[str]:
        promised = {item.object[2] for item in self._of("Namespace", final=True)}
        there = {item.object[2] for item in self._of("Namespace")}
        for item in self._present:
            if item.object[1] in promised - there:
                yield f"{item.name} lies in a namespace that does not exist"

    def _claims(self) -> Iterator[str]:
        there = {item.object[1:] for item in self._of("ConfigMap")}
        claims = [item for item in self._of("ConfigMap", final=True) if item.object[2].endswith("-owner")]
        missing = [item for item in claims if item.object[1:] not in there]
        objects = {
            (namespace, name.removesuffix("-owner")) for _, namespace, name in (i.object for i in missing)
        }
        components = {i.parent for i in missing if i.name == f"{i.parent.rpartition('::')[2]}-claim"}
        for item in self._present:
            _, namespace, name = item.object
            if item.parent in components or (namespace, name.removesuffix("-cacert")) in objects:
                yield f"{item.name} may be another stack's: it is not claimed"

    def _routes(self) -> Iterator[str]:
        for route in self._of("VirtualService"):
            namespace = route.object[1]
            for gateway in route.inputs["spec"]["gateways"]:
                at, _, name = gateway.rpartition("/")
                if gateway == "mesh" or at not in ("", namespace):
                    continue
                if not any(server.object[2] == name for server in self._of("Gateway", namespace)):
                    yield f"{route.name} belongs to the server {name}, which does not exist"
            for destination in _destinations(route):
                yield from self._destination(route, destination)

    def _destination(self, route: Registration, destination: Mapping[str, Any]) -> Iterator[str]:
        host, subset = destination["host"], destination.get("subset")
        rules = [
            rule
            for rule in self._of("DestinationRule")
            if rule.inputs["spec"]["host"] == host
            and (rule.object[1] == route.object[1] or route.object[1] in rule.inputs["spec"]["exportTo"])
        ]
        found = [tls for rule in rules for tls in _tls(rule, subset)]
        if not rules or (subset is not None and not found):
            yield f"{route.name} goes to {host} ({subset}), for which there is no rule"
        elif not (host.endswith(IN_CLUSTER) or self._plain_by_wish(host)) and not any(
            tls is not None and tls["mode"] != "DISABLE" for tls in found
        ):
            yield f"{route.name} goes to {host} without TLS"
        for tls in found:
            if tls is not None and tls["mode"] == "ISTIO_MUTUAL":
                yield from self._next_server(route, destination, tls["sni"])

    def _plain_by_wish(self, host: str) -> bool:
        """Whether `host` is an upstream that is declared to speak without TLS."""
        entries = (e for e in self._of("ServiceEntry", final=True) if host in e.inputs["spec"]["hosts"])
        return any(port["protocol"] in {"HTTP", "TCP"} for e in entries for port in e.inputs["spec"]["ports"])

    def _next_server(self, route: Registration, destination: Mapping[str, Any], sni: str) -> Iterator[str]:
        servers = [s for g in self._of("Gateway") for s in g.inputs["spec"]["servers"] if sni in s["hosts"]]
        port = destination["port"]["number"]
        if not any(s["port"]["number"] == port and s["tls"].get("mode") == "ISTIO_MUTUAL" for s in servers):
            yield f"{route.name} goes to a gateway that has no server for {sni}"
        onward = [
            r
            for r in self._of("VirtualService")
            if sni in r.inputs["spec"]["hosts"] and r.inputs["spec"]["gateways"] != ["mesh"]
        ]
        if not any(r.name != route.name for r in onward):
            yield f"{route.name} goes to a gateway that has no route for {sni}"

    def _known(self) -> Iterator[str]:
        routes = [item.inputs["spec"] for item in self._of("VirtualService")]
        for entry in self._of("ServiceEntry"):
            spec = entry.inputs["spec"]
            for host in spec["hosts"] if spec["resolution"] == "NONE" else ():
                routed = [r for r in routes if host in r["hosts"] and "mesh" in r["gateways"]]
                if not any(set(spec["exportTo"]) <= set(route["exportTo"]) for route in routed):
                    yield f"{entry.name} makes {host} known to sidecars that have no route for it"

    def _servers(self) -> Iterator[str]:
        for gateway in self._of("Gateway"):
            namespace, spec = gateway.object[1], gateway.inputs["spec"]
            ours = any(
                _guards(item, spec["selector"]) for item in self._of("EnvoyFilter", namespace, final=True)
            )
            if ours and not any(
                _guards(item, spec["selector"]) for item in self._of("EnvoyFilter", namespace)
            ):
                yield f"{gateway.name} has no guard"
            for server in spec["servers"]:
                mode = server["tls"].get("mode")
                if mode == "ISTIO_MUTUAL":
                    if not server["tls"].get("subjectAltNames"):
                        yield from self._denied_to_others(gateway, server["hosts"])
                    yield from self._authorized(gateway)
                elif mode not in {"MUTUAL", "SIMPLE"} and not server["tls"].get("httpsRedirect"):
                    yield f"{gateway.name} has a server without TLS"

    def _denied_to_others(self, gateway: Registration, hosts: list[str]) -> Iterator[str]:
        namespace, selector = gateway.object[1], gateway.inputs["spec"]["selector"]
        policies = [
            item.inputs["spec"]
            for item in self._of("AuthorizationPolicy", namespace)
            if _selects(item.inputs["spec"]["selector"]["matchLabels"], selector)
        ]
        denied = {
            host
            for policy in policies
            if policy["action"] == "DENY"
            for rule in policy["rules"]
            for when in rule["when"]
            for host in when["values"]
        }
        if not set(hosts) <= denied:
            yield f"{gateway.name} is open to every workload"

    def _authorized(self, gateway: Registration) -> Iterator[str]:
        namespace, selector = gateway.object[1], gateway.inputs["spec"]["selector"]
        asked = [p for p in self._of("AuthorizationPolicy", namespace, final=True) if _asks(p, selector)]
        there = [p for p in self._of("AuthorizationPolicy", namespace) if _asks(p, selector)]
        if len(there) < len(asked):
            yield f"{gateway.name} asks nobody for authorization"
        if there and not list(self._of("ServiceEntry", namespace)):
            yield f"{gateway.name} asks an authorizer that nobody can find"

    def _credentials(self) -> Iterator[str]:
        secrets = {item.object[1:]: item for item in self._of("Secret", final=True)}
        there = {item.object[1:] for item in self._of("Secret")}
        for item in self._present:
            for credential in _credentials(item):
                namespace = item.object[1]
                anchor = (namespace, f"{credential}-cacert")
                if anchor in secrets and anchor not in there:
                    yield f"{item.name} trusts whatever the client Secret trusts"
                if list(self._of("RoleBinding", namespace, final=True)) and not self._can_read(namespace):
                    yield f"{item.name} needs the Secret {credential}, which its gateway may not read"

    def _can_read(self, namespace: str) -> bool:
        roles = {item.object[2] for item in self._of("Role", namespace)}
        return any(b.inputs["roleRef"]["name"] in roles for b in self._of("RoleBinding", namespace))

    def _proxies(self) -> Iterator[str]:
        for deployment in self._of("Deployment"):
            namespace = deployment.object[1]
            pod = deployment.inputs["spec"]["template"]
            labels = pod["metadata"]["labels"]
            account = pod["spec"]["serviceAccountName"]
            if not any(a.object[2] == account for a in self._of("ServiceAccount", namespace)):
                yield f"{deployment.name} has no identity"
            proxy = any(container["name"] == "istio-proxy" for container in pod["spec"]["containers"])
            if proxy and not self._can_read(namespace):
                yield f"{deployment.name} may not read its Secrets"
            if not any(
                _selects(p.inputs["spec"]["podSelector"]["matchLabels"], labels)
                and {"Ingress", "Egress"} <= set(p.inputs["spec"]["policyTypes"])
                for p in self._of("NetworkPolicy", namespace)
            ):
                yield f"{deployment.name} may reach anything"


def _selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    return selector.items() <= labels.items()


def _guards(item: Registration, labels: Mapping[str, str]) -> bool:
    spec = item.inputs["spec"]
    guarding = any(patch["applyTo"] == "NETWORK_FILTER" for patch in spec["configPatches"])
    return guarding and _selects(spec["workloadSelector"]["labels"], labels)


def _asks(policy: Registration, selector: Mapping[str, str]) -> bool:
    spec = policy.inputs["spec"]
    return spec["action"] == "CUSTOM" and _selects(spec["selector"]["matchLabels"], selector)


def _destinations(route: Registration) -> Iterator[Mapping[str, Any]]:
    spec = route.inputs["spec"]
    for rule in (*spec.get("tcp", ()), *spec.get("http", ())):
        for target in rule["route"]:
            yield target["destination"]


def _tls(rule: Registration, subset: str | None) -> list[Mapping[str, Any] | None]:
    """The TLS settings that apply to a subset of the rule, None for plain text; empty when there is no such subset."""
    spec = rule.inputs["spec"]
    top = spec.get("trafficPolicy", {}).get("tls")
    if subset is None:
        return [top]
    found = [item for item in spec.get("subsets", ()) if item["name"] == subset]
    return [item.get("trafficPolicy", {}).get("tls", top) for item in found]


def _credentials(item: Registration) -> Iterator[str]:
    spec = item.inputs.get("spec", {})
    if item.kind == "DestinationRule":
        settings = [spec.get("trafficPolicy", {}).get("tls", {})]
    elif item.kind == "Gateway":
        settings = [server["tls"] for server in spec["servers"]]
    else:
        settings = []
    for tls in settings:
        if "credentialName" in tls:
            yield tls["credentialName"]
