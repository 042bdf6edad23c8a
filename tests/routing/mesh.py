"""How Istio and Kubernetes read plain objects: visibility, look-up order, merging, selection, admission.

Written from Istio's documentation and source, and from nothing in this repository, so that a builder cannot agree with
itself by mistake.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


def is_ip(text: object) -> bool:
    try:
        ipaddress.ip_address(str(text))
    except ValueError:
        return False
    return True


def block_of(address: object) -> object:
    """The network that holds an address alone, or the network that a block is; None for neither."""
    try:
        return ipaddress.ip_network(str(address))
    except ValueError:
        return None


def name_of(item: Object) -> str:
    """How a violation names an object."""
    metadata = item["metadata"]
    return f"{item['kind']} {metadata.get('namespace', '-')}/{metadata['name']}"


def namespace_of(item: Object) -> str:
    return str(item["metadata"].get("namespace", ""))


def selects(selector: Mapping[str, str] | None, labels: Mapping[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in (selector or {}).items())


def pod_labels(deployment: Object) -> dict[str, str]:
    return dict(deployment["spec"]["template"]["metadata"].get("labels", {}))


def service_account(deployment: Object) -> str:
    return str(deployment["spec"]["template"]["spec"].get("serviceAccountName", "default"))


def tcp_pool(rule: Object) -> dict[str, Any]:
    """The top-level `connectionPool.tcp` of a DestinationRule."""
    policy = rule["spec"].get("trafficPolicy") or {}
    return dict((policy.get("connectionPool") or {}).get("tcp") or {})


def top_tls(rule: Object) -> dict[str, Any] | None:
    """The TLS of a DestinationRule's base cluster."""
    tls = (rule["spec"].get("trafficPolicy") or {}).get("tls")
    return dict(tls) if tls is not None else None


def subset_tls(rule: Object, subset: Object) -> dict[str, Any] | None:
    """The TLS of a subset's cluster: its own, else the rule's."""
    own = (subset.get("trafficPolicy") or {}).get("tls")
    return dict(own) if own is not None else top_tls(rule)


def subsets(rule: Object) -> list[Object]:
    return list(rule["spec"].get("subsets") or ())


def servers(gateway: Object) -> list[Object]:
    return list(gateway["spec"].get("servers") or ())


def destinations(route: Object) -> Iterator[Object]:
    """Every destination of a VirtualService."""
    for protocol in ("tcp", "tls", "http"):
        for item in route["spec"].get(protocol) or ():
            for weighted in item.get("route") or ():
                yield weighted["destination"]


@dataclass(frozen=True)
class Hop:
    """A destination as a proxy resolves it. `tls` is None for plain text."""

    service: Object
    rule: Object | None
    tls: Mapping[str, Any] | None
    port: Mapping[str, Any]


class Broken(Exception):  # noqa: N818
    """A connection that does not get through, and why."""


class Mesh:
    """All objects of one cluster, with what was agreed about its outside."""

    def __init__(self, objects: Iterable[Object]) -> None:
        self.objects = list(objects)
        (self._config,) = [item["spec"] for item in self.objects if item["kind"] == "MeshConfig"]
        self.root = str(self._config["rootNamespace"])

    def all(self, kind: str) -> list[Object]:
        """Objects of a kind that the cluster holds."""
        return [item for item in self.objects if item["kind"] == kind]

    def agreed(self, kind: str) -> list[dict[str, Any]]:
        """What was agreed with the outside."""
        return [item["spec"] for item in self.all(kind) if item["apiVersion"] == "outside/v1"]

    @property
    def extension_providers(self) -> dict[str, dict[str, Any]]:
        return dict(self._config["extensionProviders"])

    @property
    def rendered(self) -> bool:
        """Whether no API server has allocated addresses."""
        return bool(self._config["rendered"])

    def spiffe(self, namespace: str, account: str) -> str:
        return f"spiffe://{self._config['trustDomain']}/ns/{namespace}/sa/{account}"

    # Selection of Pods

    def pods(self, service: Object) -> list[Object]:
        """The Deployments whose Pods a Service selects."""
        selector = service["spec"].get("selector")
        if not selector:
            return []
        return [
            item
            for item in self.all("Deployment")
            if namespace_of(item) == namespace_of(service) and selects(selector, pod_labels(item))
        ]

    @property
    def created(self) -> list[Object]:
        """The gateways that the stack makes, as against those of other owners."""
        return [
            item
            for item in self.gateways()
            if (item["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by") == "meshbridge"
        ]

    def gateways(self) -> list[Object]:
        """The Deployments that are gateways: all but the broker."""
        brokers = {(agreed["namespace"], agreed["name"]) for agreed in self.agreed("Broker")}
        return [
            item
            for item in self.all("Deployment")
            if (namespace_of(item), item["metadata"]["name"]) not in brokers
        ]

    def services_of(self, deployment: Object) -> list[Object]:
        """The Services that select a Deployment's Pods."""
        return [item for item in self.all("Service") if deployment in self.pods(item)]

    def workloads_of(self, gateway: Object) -> list[Object]:
        """The Deployments that serve a Gateway: of any namespace, for that is how Istio reads a selector."""
        return [
            item
            for item in self.all("Deployment")
            if selects(gateway["spec"].get("selector"), pod_labels(item))
        ]

    def gateways_on(self, deployment: Object) -> list[Object]:
        return [item for item in self.all("Gateway") if deployment in self.workloads_of(item)]

    def workloads_selected(self, item: Object, selector: Mapping[str, str]) -> list[Object]:
        """The Deployments in an object's namespace that its selector names."""
        return [
            d
            for d in self.all("Deployment")
            if namespace_of(d) == namespace_of(item) and selects(selector, pod_labels(d))
        ]

    # Visibility and look-up

    @staticmethod
    def visible(item: Object, namespace: str) -> bool:
        """Whether `exportTo` shows an object to a namespace."""
        exported = item["spec"].get("exportTo") or ["*"]
        own = namespace_of(item) == namespace
        return "*" in exported or namespace in exported or ("." in exported and own)

    def service(self, host: str, namespace: str) -> Object | None:
        """The Service or ServiceEntry of a host, as a proxy of that namespace sees it."""
        for item in self.all("Service"):
            if host.startswith(f"{item['metadata']['name']}.{namespace_of(item)}.svc."):
                return item
        found = [
            s for s in self.all("ServiceEntry") if host in s["spec"]["hosts"] and self.visible(s, namespace)
        ]
        found.sort(key=lambda item: namespace_of(item) != namespace)
        return found[0] if found else None

    def rules(
        self, host: str, namespace: str, labels: Mapping[str, str], service: Object | None
    ) -> list[Object]:
        """The DestinationRules that a proxy uses for a host: those of its own namespace, else of the service's, else of
        the root namespace. The first namespace that has any wins; a rule for the proxy's labels comes before others."""
        order = [namespace, namespace_of(service) if service is not None else "", self.root]
        for candidate in dict.fromkeys(order):
            found = [
                item
                for item in self.all("DestinationRule")
                if namespace_of(item) == candidate
                and item["spec"].get("host") == host
                and self.visible(item, namespace)
            ]
            own = [
                r for r in found if (s := _rule_selector(r)) and candidate == namespace and selects(s, labels)
            ]
            general = [r for r in found if not _rule_selector(r)]
            if own or general:
                return own or general
        return []

    def hop(self, destination: Object, namespace: str, labels: Mapping[str, str]) -> Hop:
        """A destination as a proxy in that namespace resolves it."""
        host = destination["host"]
        service = self.service(host, namespace)
        if service is None:
            raise Broken(f"nothing in {namespace} knows the host {host}")
        listed = service["spec"].get("ports") or []
        number = (destination.get("port") or {}).get("number")
        port = next((p for p in listed if number in {p.get("port"), p.get("number")}), None)
        if port is None:
            raise Broken(f"{name_of(service)} has no port {number}")
        rules = self.rules(host, namespace, labels, service)
        wanted = destination.get("subset")
        if wanted is None:
            rule = rules[0] if rules else None
            return Hop(service, rule, top_tls(rule) if rule else None, port)
        for rule in rules:
            for subset in subsets(rule):
                if subset["name"] == wanted:
                    first = next((r for r in rules if r["spec"].get("trafficPolicy")), rule)
                    return Hop(service, first, subset_tls(rule, subset) or top_tls(first), port)
        raise Broken(f"no rule that {namespace} uses for {host} has the subset {wanted}")

    # Routes

    def bound(self, gateway: Object) -> list[Object]:
        """The VirtualServices that a Gateway's Pods serve for it."""
        namespace, name = namespace_of(gateway), gateway["metadata"]["name"]
        seen_from = {namespace_of(d) for d in self.workloads_of(gateway)}
        return [
            item
            for item in self.all("VirtualService")
            if f"{namespace}/{name}" in _bindings(item) and all(self.visible(item, n) for n in seen_from)
        ]

    def mesh_routes(self, host: str, namespace: str) -> list[Object]:
        """The VirtualServices of a host that a sidecar uses."""
        return [
            item
            for item in self.all("VirtualService")
            if "mesh" in (item["spec"].get("gateways") or ["mesh"])
            and host in item["spec"]["hosts"]
            and self.visible(item, namespace)
        ]

    # Admission

    def admits(self, deployment: Object, server: Object, identity: str) -> bool:
        """Whether a server takes the certificate of a SPIFFE ID in the handshake. Raises Broken where Envoy refuses the listener."""
        untyped = [{"exact": name} for name in (server.get("tls") or {}).get("subjectAltNames") or ()]
        typed: list[Object] = []
        for context in self._chain_patches(deployment, server):
            validation = context["combined_validation_context"]["default_validation_context"]
            untyped += validation.get("match_subject_alt_names") or ()
            typed += validation.get("match_typed_subject_alt_names") or ()
        # Envoy ignores untyped matchers beside typed ones; a SPIFFE ID is a URI.
        matchers = [each["matcher"] if each["san_type"] == "URI" else {} for each in typed] or untyped
        return not matchers or any(
            identity == matcher.get("exact")
            or ("prefix" in matcher and identity.startswith(matcher["prefix"]))
            for matcher in matchers
        )

    def _chain_patches(self, deployment: Object, server: Object) -> Iterator[Object]:
        """What the EnvoyFilters of a Deployment merge into the TLS of the filter chain of a server."""
        for item in self.all("EnvoyFilter"):
            selector = item["spec"].get("workloadSelector", {}).get("labels")
            if namespace_of(item) != namespace_of(deployment) or not selects(
                selector, pod_labels(deployment)
            ):
                continue
            for each in item["spec"]["configPatches"]:
                match, patch = each["match"], each["patch"]
                sni = match.get("listener", {}).get("filterChain", {}).get("sni")
                if (
                    each["applyTo"] == "FILTER_CHAIN"
                    and match.get("context", "ANY") in {"ANY", "GATEWAY"}
                    and (sni is None or sni in server["hosts"])
                    and patch["operation"] == "MERGE"
                ):
                    socket = patch["value"]["transport_socket"]
                    if socket["name"] != "envoy.transport_sockets.tls":
                        raise Broken(f"{name_of(item)}: the chain gets the transport socket {socket['name']}")
                    yield socket["typed_config"]["common_tls_context"]

    def denial(self, deployment: Object, identity: str, sni: str) -> str | None:
        """Why the AuthorizationPolicies of a Deployment refuse a SPIFFE ID, None when they do not."""
        allowing: list[Object] = []
        for policy in self.all("AuthorizationPolicy"):
            selector = (policy["spec"].get("selector") or {}).get("matchLabels")
            if namespace_of(policy) != namespace_of(deployment) or not selects(
                selector, pod_labels(deployment)
            ):
                continue
            matched = any(_matches(rule, identity, sni) for rule in policy["spec"].get("rules") or ())
            if policy["spec"].get("action", "ALLOW") == "DENY" and matched:
                return f"{name_of(policy)} denies {identity}"
            if policy["spec"].get("action", "ALLOW") == "ALLOW":
                allowing.append(policy)
                if matched:
                    return None
        return f"{name_of(allowing[0])} allows others only" if allowing else None

    def permitted(self, deployment: Object, direction: str, peer: Mapping[str, Any], port: int) -> bool:
        """Whether the NetworkPolicies of a Deployment let a connection through. `peer` has `namespace` or `ip`."""
        applying = [
            policy
            for policy in self.all("NetworkPolicy")
            if namespace_of(policy) == namespace_of(deployment)
            and selects(policy["spec"]["podSelector"].get("matchLabels"), pod_labels(deployment))
            and direction in policy["spec"]["policyTypes"]
        ]
        return not applying or any(policy_permits(policy, direction, peer, port) for policy in applying)

    # The way of one connection

    def end_of(self, application: Mapping[str, Any], account: str) -> str:
        """Where a connection of an application ends, as `address:port`. Raises Broken for one that does not get there."""
        namespace = application["namespace"]
        destination = self._entered(application) if "gateway" in application else self._captured(application)
        hop = self.hop(destination, namespace, application.get("gateway", {}))
        deployment, target = self._next_pods(hop)
        if hop.tls is None or hop.tls.get("mode") != "ISTIO_MUTUAL":
            raise Broken(f"{name_of(deployment)} is called without the mesh's TLS")
        peer = self.spiffe(namespace_of(deployment), service_account(deployment))
        if hop.tls.get("subjectAltNames") and peer not in hop.tls["subjectAltNames"]:
            raise Broken(f"{name_of(deployment)} is {peer}, which its clients do not expect")
        if not self.permitted(deployment, "Ingress", {"namespace": namespace}, target):
            raise Broken(f"network policies keep {namespace} from port {target} of {name_of(deployment)}")
        gateway, server = self._chain(deployment, hop.port["port"], str(hop.tls.get("sni")))
        if (server.get("tls") or {}).get("mode") != "ISTIO_MUTUAL":
            raise Broken(f"{name_of(gateway)} does not speak the mesh's TLS")
        identity = self.spiffe(namespace, account)
        if not self.admits(deployment, server, identity):
            raise Broken(f"{name_of(gateway)} does not know {identity}")
        denied = self.denial(deployment, identity, str(hop.tls.get("sni")))
        if denied:
            raise Broken(denied)
        return self.end_behind(deployment, gateway, server, server["hosts"][0])

    def end_behind(self, deployment: Object, gateway: Object, server: Object, host: str) -> str:
        """Where a gateway sends what one of its servers accepts."""
        port = server["port"]["number"]
        wants_http = server["port"]["protocol"] in {"HTTP", "HTTPS"}
        for route in self.bound(gateway):
            if host not in route["spec"]["hosts"]:
                continue
            for item in route["spec"].get("http" if wants_http else "tcp") or ():
                matches = item.get("match") or [{}]
                if any(match.get("port", port) == port for match in matches):
                    destination = item["route"][0]["destination"]
                    hop = self.hop(destination, namespace_of(deployment), pod_labels(deployment))
                    return self._left(deployment, hop)
        raise Broken(f"{name_of(gateway)} has no route for {host} on port {port}")

    def _left(self, deployment: Object, hop: Hop) -> str:
        spec = hop.service["spec"]
        endpoints = [e["address"] for e in spec.get("endpoints") or ()] or list(spec["hosts"])
        number = int(hop.port["number"])
        if not self.permitted(
            deployment, "Egress", {"ip": endpoints[0] if is_ip(endpoints[0]) else None}, number
        ):
            raise Broken(f"network policies keep {name_of(deployment)} from {endpoints[0]}:{number}")
        return f"{endpoints[0]}:{number}"

    def _captured(self, application: Mapping[str, Any]) -> Object:
        """What a sidecar does with a connection to a host and port: the destination of the first route that matches."""
        host, port, namespace = application["host"], application["port"], application["namespace"]
        service = self.service(host, namespace)
        if service is None:
            raise Broken(f"the sidecars of {namespace} do not know {host}")
        if not any(port in {p.get("port"), p.get("number")} for p in service["spec"].get("ports") or ()):
            raise Broken(f"{name_of(service)} has no port {port}")
        for route in self.mesh_routes(host, namespace):
            for item in route["spec"].get(application["protocol"].lower()) or ():
                if any(_captures(match, service, port) for match in item.get("match") or [{}]):
                    destination: Object = item["route"][0]["destination"]
                    return destination
        raise Broken(f"no route of {namespace} matches {host}:{port}")

    def _entered(self, application: Mapping[str, Any]) -> Object:
        """What an ingress gateway does with a request for a host on its HTTPS port."""
        (deployment,) = [d for d in self.all("Deployment") if selects(application["gateway"], pod_labels(d))]
        for gateway in self.gateways_on(deployment):
            for server in servers(gateway):
                if application["host"] in server["hosts"] and server["port"]["number"] == application["port"]:
                    for route in self.bound(gateway):
                        if application["host"] in route["spec"]["hosts"]:
                            destination: Object = route["spec"]["http"][0]["route"][0]["destination"]
                            return destination
        raise Broken(f"the ingress gateway has no route for {application['host']}")

    def _next_pods(self, hop: Hop) -> tuple[Object, int]:
        deployments = self.pods(hop.service)
        if len(deployments) != 1:
            raise Broken(f"{name_of(hop.service)} selects {len(deployments)} workloads")
        return deployments[0], int(hop.port.get("targetPort", hop.port["port"]))

    def _chain(self, deployment: Object, port: int, sni: str) -> tuple[Object, Object]:
        """The filter chain that a gateway chooses for an SNI."""
        for gateway in self.gateways_on(deployment):
            for server in servers(gateway):
                if server["port"]["number"] == port and sni in server["hosts"]:
                    return gateway, server
        raise Broken(f"{name_of(deployment)} has no server for {sni} on port {port}")


def _rule_selector(rule: Object) -> Mapping[str, str] | None:
    selector: Mapping[str, str] | None = (rule["spec"].get("workloadSelector") or {}).get("matchLabels")
    return selector


def _bindings(route: Object) -> list[str]:
    """The Gateways that a VirtualService names, as `namespace/name`."""
    named = [name for name in route["spec"].get("gateways") or ["mesh"] if name != "mesh"]
    return [name if "/" in name else f"{namespace_of(route)}/{name}" for name in named]


def _captures(match: Object, service: Object, port: int) -> bool:
    subnets = match.get("destinationSubnets")
    address = service["spec"].get("clusterIP")
    inside = subnets is None or any(
        is_ip(address) and ipaddress.ip_address(address) in ipaddress.ip_network(subnet) for subnet in subnets
    )
    return match.get("port", port) == port and inside


def _matches(rule: Object, identity: str, sni: str) -> bool:
    principal = identity.removeprefix("spiffe://")
    namespace = principal.split("/")[2]
    sources = [item["source"] for item in rule.get("from") or ()] or [{}]
    source_matches = any(
        namespace not in source.get("notNamespaces", ())
        and not _is_one_of(source.get("notPrincipals", ()), principal)
        and namespace in source.get("namespaces", [namespace])
        and _is_one_of(source.get("principals", [principal]), principal)
        for source in sources
    )
    conditions = [item for item in rule.get("when") or () if item["key"] == "connection.sni"]
    return source_matches and all(sni in item.get("values", [sni]) for item in conditions)


def _is_one_of(principals: Iterable[str], principal: str) -> bool:
    """A trailing `*` stands for whatever follows (Istio's "Authorization Policy", Source)."""
    return any(
        principal.startswith(each.removesuffix("*")) if each.endswith("*") else principal == each
        for each in principals
    )


def policy_permits(policy: Object, direction: str, peer: Mapping[str, Any], port: int) -> bool:
    """Whether a NetworkPolicy allows a connection from (Ingress) or to (Egress) a peer: a `namespace` or an `ip`."""
    side = "from" if direction == "Ingress" else "to"
    return any(
        (not rule.get("ports") or any(p.get("port") == port for p in rule["ports"]))
        and (not rule.get(side) or any(_is_peer(item, peer) for item in rule[side]))
        for rule in policy["spec"].get(direction.lower()) or ()
    )


def _is_peer(item: Object, peer: Mapping[str, Any]) -> bool:
    if "namespace" in peer:
        selector = item.get("namespaceSelector")
        return selector is not None and selects(
            selector.get("matchLabels"), {"kubernetes.io/metadata.name": peer["namespace"]}
        )
    if "ipBlock" not in item:
        return False
    if peer["ip"] is None:
        return True
    address, block = ipaddress.ip_address(peer["ip"]), ipaddress.ip_network(item["ipBlock"]["cidr"])
    return address in block
