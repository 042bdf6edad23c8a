"""What must hold of all objects of a cluster, whatever made them.

Each invariant reads plain objects, as the API server holds them, with Istio's semantics (`mesh.py`), and yields what
violates it. `INVARIANTS` is the table; `violated` applies it. The ids `1` to `19` are the rules that both sides of a
connection depend on; the others are traps of single objects.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import yaml

from tests.routing.deployed import EXISTING_ADDRESS, NLB_ZONE, OWN_ADDRESS, SERVICE_ADDRESS, ZONE
from tests.routing.mesh import (
    Broken,
    Mesh,
    Object,
    block_of,
    destinations,
    is_ip,
    name_of,
    namespace_of,
    pod_labels,
    policy_permits,
    selects,
    servers,
    service_account,
    subset_tls,
    subsets,
    tcp_pool,
    top_tls,
)

Check = Callable[[Mesh], Iterator[str]]

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
STRANGER = "stranger"
PUBLIC = "203.0.113.9"


@dataclass(frozen=True)
class Invariant:
    """One invariant: its id, its name, what it says, and the function that finds violations."""

    id: str
    name: str
    says: str
    check: Check

    def violations(self, objects: Iterable[Object]) -> list[str]:
        """What violates the invariant among the objects of one cluster."""
        return list(self.check(Mesh(objects)))


INVARIANTS: dict[str, Invariant] = {}


def invariant(number: str, says: str) -> Callable[[Check], Check]:
    """Registers an invariant under its id."""

    def register(check: Check) -> Check:
        if number in INVARIANTS:
            raise ValueError(f"invariant {number} is there already")
        INVARIANTS[number] = Invariant(number, check.__name__.replace("_", " "), says, check)
        return check

    return register


def violated(objects: Iterable[Object]) -> dict[str, list[str]]:
    """The violations of every invariant that is violated, by its id."""
    mesh = Mesh(objects)
    found = {number: list(item.check(mesh)) for number, item in INVARIANTS.items()}
    return {number: violations for number, violations in found.items() if violations}


def _gateway_servers(mesh: Mesh) -> Iterator[tuple[Object, Object]]:
    for gateway in mesh.all("Gateway"):
        for server in servers(gateway):
            yield gateway, server


def _mesh_rules(mesh: Mesh) -> list[Object]:
    """The DestinationRules of the hop between a sidecar and a gateway: those whose host is a Service."""
    return [rule for rule in mesh.all("DestinationRule") if ".svc." in rule["spec"]["host"]]


def _external_rules(mesh: Mesh) -> list[Object]:
    """The DestinationRules of the hop that leaves the mesh."""
    return [rule for rule in mesh.all("DestinationRule") if ".svc." not in rule["spec"]["host"]]


def _entries_of(mesh: Mesh, host: str) -> list[Object]:
    return [entry for entry in mesh.all("ServiceEntry") if host in entry["spec"]["hosts"]]


def _rules_of(mesh: Mesh, host: str) -> list[Object]:
    return [rule for rule in mesh.all("DestinationRule") if rule["spec"]["host"] == host]


def _upstream_entries(mesh: Mesh) -> Iterator[tuple[dict[str, object], Object]]:
    """Each external service, with the entries behind the gateway that serves its proxied host."""
    for service in mesh.agreed("ExternalService"):
        for gateway, server in _gateway_servers(mesh):
            if service["proxied"] not in server["hosts"]:
                continue
            for route in mesh.bound(gateway):
                for destination in destinations(route):
                    for entry in _entries_of(mesh, destination["host"]):
                        if namespace_of(entry) == namespace_of(gateway):
                            yield service, entry


def _upstream_rules(mesh: Mesh) -> Iterator[tuple[dict[str, object], Object]]:
    """Each external service, with the rule that its gateway uses for it."""
    for service, entry in _upstream_entries(mesh):
        for rule in _rules_of(mesh, entry["spec"]["hosts"][0]):
            if namespace_of(rule) == namespace_of(entry):
                yield service, rule


def _agreed_rules(mesh: Mesh) -> Iterator[tuple[dict[str, object], Object]]:
    """What was agreed about each hop that leaves the mesh, with its DestinationRule."""
    for remote in mesh.agreed("RemoteEndpoint"):
        for rule in _rules_of(mesh, remote["host"]):
            yield remote, rule
    yield from _upstream_rules(mesh)
    for consumers in mesh.agreed("RemoteConsumers"):
        for gateway, server in _gateway_servers(mesh):
            if consumers["host"] in server["hosts"]:
                for route in mesh.bound(gateway):
                    for destination in destinations(route):
                        for rule in _rules_of(mesh, destination["host"]):
                            yield consumers, rule


def _mesh_facing(mesh: Mesh) -> Iterator[tuple[Object, Object]]:
    """The servers whose hosts are an SNI that applications of this cluster are to send."""
    wanted = {application["sni"] for application in mesh.agreed("Application")}
    entered = [
        application["gateway"] for application in mesh.agreed("Application") if "gateway" in application
    ]
    for gateway, server in _gateway_servers(mesh):
        outside = any(gateway["spec"].get("selector") == labels for labels in entered)
        if wanted & set(server["hosts"]) and not outside:
            yield gateway, server


@invariant(
    "1",
    "One host everywhere: each SNI is the host of a server, of its route and of the far end; lower case, no wildcard",
)
def one_host(mesh: Mesh) -> Iterator[str]:
    for gateway, server in _gateway_servers(mesh):
        for host in server["hosts"]:
            if host != host.lower() or "*" in host:
                yield f"{name_of(gateway)}: {host} is no exact lower-case host"
            if not any(host in route["spec"]["hosts"] for route in mesh.bound(gateway)):
                yield f"{name_of(gateway)}: no route for {host}"
    for rule in _mesh_rules(mesh):
        for subset in subsets(rule):
            sni = (subset_tls(rule, subset) or {}).get("sni")
            service = mesh.service(rule["spec"]["host"], namespace_of(rule))
            hosts = {
                host
                for deployment in (mesh.pods(service) if service else [])
                for gateway in mesh.gateways_on(deployment)
                for server in servers(gateway)
                for host in server["hosts"]
            }
            if sni not in hosts:
                yield f"{name_of(rule)}: no server for the SNI {sni}"
    yield from _one_remote_host(mesh)


def _one_remote_host(mesh: Mesh) -> Iterator[str]:
    for remote in mesh.agreed("RemoteEndpoint"):
        host = remote["host"]
        if not _entries_of(mesh, host):
            yield f"no ServiceEntry for {host}"
        for rule in _rules_of(mesh, host):
            if (top_tls(rule) or {}).get("sni") != host:
                yield f"{name_of(rule)}: does not send the SNI {host}"
        for route in mesh.all("VirtualService"):
            if any(d["host"] == host for d in destinations(route)) and route["spec"]["hosts"] != [host]:
                yield f"{name_of(route)}: leads to {host} under another name"


@invariant("2", "Every public host lies below the system domain, where its wildcard record resolves it")
def public_hosts_resolve(mesh: Mesh) -> Iterator[str]:
    domains = [record["domain"] for record in mesh.agreed("WildcardRecord")]
    public = [
        (name_of(gateway), host)
        for gateway, server in _gateway_servers(mesh)
        if (server.get("tls") or {}).get("mode") == "MUTUAL"
        for host in server["hosts"]
    ]
    public += [
        (name_of(rule), rule["spec"]["host"])
        for remote, rule in _agreed_rules(mesh)
        if "idleSeconds" in remote
    ]
    for name, host in public:
        if not any(host.endswith(f".{domain}") for domain in domains):
            yield f"{name}: no record resolves {host}"


@invariant("3", "The consumer accepts the provider by its id, and by nothing else")
def provider_is_named(mesh: Mesh) -> Iterator[str]:
    for remote in mesh.agreed("RemoteEndpoint"):
        for rule in _rules_of(mesh, remote["host"]):
            if (top_tls(rule) or {}).get("subjectAltNames") != [remote["certificate"]]:
                yield f"{name_of(rule)}: does not ask for {remote['certificate']}"


@invariant(
    "4", "The provider admits an endpoint's consumers by their ids, and nobody else; never an empty list"
)
def consumers_are_named(mesh: Mesh) -> Iterator[str]:
    for agreed in mesh.agreed("RemoteConsumers"):
        found = False
        for gateway, server in _gateway_servers(mesh):
            if agreed["host"] not in server["hosts"]:
                continue
            found = True
            tls = server.get("tls") or {}
            if tls.get("mode") != "MUTUAL":
                yield f"{name_of(gateway)}: asks for no certificate"
            if tls.get("subjectAltNames") != agreed["names"]:
                yield f"{name_of(gateway)}: admits {tls.get('subjectAltNames')}, not {agreed['names']}"
        if not found:
            yield f"no server for {agreed['host']}"


@invariant("5", "The CA that vouches for a provider is the provider's own, and vouches for no other")
def authority_is_the_providers(mesh: Mesh) -> Iterator[str]:
    for remote in mesh.agreed("RemoteEndpoint"):
        for rule in _rules_of(mesh, remote["host"]):
            name = (top_tls(rule) or {}).get("credentialName")
            secrets = {
                s["metadata"]["name"]: s for s in mesh.all("Secret") if namespace_of(s) == namespace_of(rule)
            }
            winning = secrets.get(f"{name}-cacert") or secrets.get(str(name)) or {}
            authority = {**winning.get("data", {}), **winning.get("stringData", {})}.get("ca.crt", "")
            if remote["authority"] not in authority:
                yield f"{name_of(rule)}: the CA of {remote['host']} is not in the Secret that wins for {name}"


@invariant("6", "One public port: of the entry, the route, the server and the Service")
def one_port(mesh: Mesh) -> Iterator[str]:
    yield from _one_remote_port(mesh)
    for agreed in mesh.agreed("RemoteConsumers"):
        for gateway, server in _gateway_servers(mesh):
            if agreed["host"] in server["hosts"] and server["port"]["number"] != agreed["port"]:
                yield f"{name_of(gateway)}: not port {agreed['port']}"
    for gateway, server in _gateway_servers(mesh):
        for route in mesh.bound(gateway):
            for item in route["spec"].get("tcp") or ():
                if any(match.get("port") != server["port"]["number"] for match in item.get("match") or [{}]):
                    yield f"{name_of(route)}: matches another port than {name_of(gateway)} has"


def _one_remote_port(mesh: Mesh) -> Iterator[str]:
    for remote in mesh.agreed("RemoteEndpoint"):
        for entry in _entries_of(mesh, remote["host"]):
            if [port["number"] for port in entry["spec"]["ports"]] != [remote["port"]]:
                yield f"{name_of(entry)}: not port {remote['port']}"
        for route in mesh.all("VirtualService"):
            for destination in destinations(route):
                if destination["host"] == remote["host"] and destination["port"]["number"] != remote["port"]:
                    yield f"{name_of(route)}: not port {remote['port']}"


@invariant("7", "A server's port is exposed by exactly one target port of the Services that select its Pods")
def one_target_port(mesh: Mesh) -> Iterator[str]:
    for gateway, server in _gateway_servers(mesh):
        for deployment in mesh.workloads_of(gateway):
            targets = {
                port.get("targetPort", port["port"])
                for service in mesh.services_of(deployment)
                for port in service["spec"]["ports"]
                if port["port"] == server["port"]["number"]
            }
            if len(targets) != 1:
                yield f"{name_of(gateway)}: port {server['port']['number']} has {len(targets)} target ports"


@invariant(
    "8",
    "Every subset that a route names is in the rule that wins the look-up of each proxy that uses the route",
)
def subsets_exist(mesh: Mesh) -> Iterator[str]:
    for route in mesh.all("VirtualService"):
        for namespace, labels in _users(mesh, route):
            for destination in destinations(route):
                service = mesh.service(destination["host"], namespace)
                rules = mesh.rules(destination["host"], namespace, labels, service)
                known = {subset["name"] for rule in rules for subset in subsets(rule)}
                if destination.get("subset", "") not in {*known, ""}:
                    yield f"{name_of(route)}: in {namespace}, no rule has the subset {destination['subset']}"


def _users(mesh: Mesh, route: Object) -> Iterator[tuple[str, dict[str, str]]]:
    """Namespace and labels of the proxies that use a route."""
    if "mesh" in (route["spec"].get("gateways") or ["mesh"]):
        for application in mesh.agreed("Application"):
            if application["host"] in route["spec"]["hosts"] and mesh.visible(
                route, application["namespace"]
            ):
                yield application["namespace"], {}
    for gateway in mesh.all("Gateway"):
        if route in mesh.bound(gateway):
            for deployment in mesh.workloads_of(gateway):
                yield namespace_of(deployment), pod_labels(deployment)


@invariant(
    "9",
    "Rules of the hop inside the mesh merge: equal exportTo, subsets of their own, at most one with a policy, and only that",
)
def sidecar_rules_merge(mesh: Mesh) -> Iterator[str]:
    groups: dict[tuple[str, str], list[Object]] = defaultdict(list)
    for rule in _mesh_rules(mesh):
        groups[namespace_of(rule), rule["spec"]["host"]].append(rule)
    for (namespace, host), rules in groups.items():
        where = f"rules of {host} in {namespace}"
        if len({tuple(rule["spec"].get("exportTo") or ()) for rule in rules}) > 1:
            yield f"{where}: differing exportTo"
        for name, count in Counter(subset["name"] for rule in rules for subset in subsets(rule)).items():
            if count > 1:
                yield f"{where}: subset {name} {count} times"
        shared = [rule for rule in rules if rule["spec"].get("trafficPolicy")]
        if len(shared) > 1 or any(subsets(rule) for rule in shared):
            yield f"{where}: a top-level policy beside subsets"


@invariant("10", "Each TLS leg says its mode and its SNI; ISTIO_MUTUAL never has a credentialName")
def tls_is_explicit(mesh: Mesh) -> Iterator[str]:
    for rule in mesh.all("DestinationRule"):
        described = [top_tls(rule), *(subset_tls(rule, subset) for subset in subsets(rule))]
        for tls in described:
            if tls is None:
                continue
            if not tls.get("mode") or not tls.get("sni"):
                yield f"{name_of(rule)}: TLS without mode or SNI"
            if tls.get("mode") == "ISTIO_MUTUAL" and tls.get("credentialName"):
                yield f"{name_of(rule)}: ISTIO_MUTUAL with a credentialName"
    for rule in _mesh_rules(mesh):
        for subset in subsets(rule):
            if (subset_tls(rule, subset) or {}).get("mode") != "ISTIO_MUTUAL":
                yield f"{name_of(rule)}: the hop inside the mesh is not ISTIO_MUTUAL"
    for gateway, server in _gateway_servers(mesh):
        tls = server.get("tls") or {}
        if server["port"]["protocol"] != "HTTP" and not tls.get("mode"):
            yield f"{name_of(gateway)}: TLS without mode"
        if tls.get("mode") == "ISTIO_MUTUAL" and tls.get("credentialName"):
            yield f"{name_of(gateway)}: ISTIO_MUTUAL with a credentialName"


@invariant(
    "11", "Every credential lies beside the gateway's Pods, whose service account may get, list and watch it"
)
def credentials_are_readable(mesh: Mesh) -> Iterator[str]:
    for item, credential in _credentials(mesh):
        for deployment in _readers(mesh, item):
            namespace = namespace_of(deployment)
            if not any(
                s["metadata"]["name"] == credential and namespace_of(s) == namespace
                for s in mesh.all("Secret")
            ):
                yield f"{name_of(item)}: no Secret {credential} in {namespace}"
            missing = {"get", "list", "watch"} - _verbs_on_secrets(
                mesh, namespace, service_account(deployment)
            )
            if missing:
                yield f"{name_of(item)}: {name_of(deployment)} may not {', '.join(sorted(missing))} Secrets"


def _credentials(mesh: Mesh) -> Iterator[tuple[Object, str]]:
    for gateway, server in _gateway_servers(mesh):
        if name := (server.get("tls") or {}).get("credentialName"):
            yield gateway, name
    for rule in mesh.all("DestinationRule"):
        for policy in (top_tls(rule), *(subset_tls(rule, subset) for subset in subsets(rule))):
            if policy and policy.get("credentialName"):
                yield rule, policy["credentialName"]


def _readers(mesh: Mesh, item: Object) -> list[Object]:
    """The Deployments whose proxies need an object's credential."""
    if item["kind"] == "Gateway":
        return mesh.workloads_of(item)
    host = item["spec"]["host"]
    using = [
        gateway
        for gateway in mesh.all("Gateway")
        if any(d["host"] == host for route in mesh.bound(gateway) for d in destinations(route))
    ]
    return [d for gateway in using for d in mesh.workloads_of(gateway)]


def _verbs_on_secrets(mesh: Mesh, namespace: str, account: str) -> set[str]:
    verbs: set[str] = set()
    for binding in mesh.all("RoleBinding"):
        bound = any(s["name"] == account and s.get("namespace") == namespace for s in binding["subjects"])
        if namespace_of(binding) != namespace or not bound:
            continue
        for role in mesh.all("Role"):
            if namespace_of(role) == namespace and role["metadata"]["name"] == binding["roleRef"]["name"]:
                for rule in role["rules"]:
                    if (
                        "secrets" in rule["resources"]
                        and "" in rule["apiGroups"]
                        and "resourceNames" not in rule
                    ):
                        verbs |= set(rule["verbs"])
    return verbs


@invariant(
    "12",
    "What leads out of the mesh is exported to its own namespace only, where the gateway's Pods are; nothing to all",
)
def exports_are_private(mesh: Mesh) -> Iterator[str]:
    for kind in ("ServiceEntry", "DestinationRule", "VirtualService"):
        for item in mesh.all(kind):
            exported = item["spec"].get("exportTo") or ["*"]
            if "*" in exported:
                yield f"{name_of(item)}: exported to all"
    outward = [
        entry for entry in mesh.all("ServiceEntry") if entry["spec"].get("location") == "MESH_EXTERNAL"
    ]
    outward += _external_rules(mesh)
    outward += [
        r for r in mesh.all("VirtualService") if "mesh" not in (r["spec"].get("gateways") or ["mesh"])
    ]
    for item in outward:
        if item["spec"].get("exportTo") not in (["."], [namespace_of(item)]):
            yield f"{name_of(item)}: leads out of the mesh and is exported"
    for remote in mesh.agreed("RemoteEndpoint"):
        for entry in _entries_of(mesh, remote["host"]):
            if entry["spec"].get("location") != "MESH_EXTERNAL":
                yield f"{name_of(entry)}: passes for a part of this mesh"
    for gateway in mesh.all("Gateway"):
        for deployment in mesh.workloads_of(gateway):
            if namespace_of(deployment) != namespace_of(gateway):
                yield f"{name_of(gateway)}: not beside {name_of(deployment)}"


@invariant(
    "13", "Every Gateway selects the Pods of one workload; its name is a DNS label, its port names are unique"
)
def gateways_select(mesh: Mesh) -> Iterator[str]:
    for gateway in mesh.all("Gateway"):
        if not gateway["spec"].get("selector"):
            yield f"{name_of(gateway)}: no selector, so it binds to every gateway of the mesh"
        elif len(mesh.workloads_of(gateway)) != 1:
            yield f"{name_of(gateway)}: selects {len(mesh.workloads_of(gateway))} workloads"
        if not LABEL.fullmatch(gateway["metadata"]["name"]):
            yield f"{name_of(gateway)}: the name is no DNS label"
        ports = [server["port"]["name"] for server in servers(gateway)]
        if len(set(ports)) != len(ports):
            yield f"{name_of(gateway)}: port names repeat"


@invariant("14", "(Pods, port, host) belongs to one server; never a host of the form namespace/host")
def servers_are_unique(mesh: Mesh) -> Iterator[str]:
    owners: dict[tuple[str, int, str], list[str]] = defaultdict(list)
    for gateway, server in _gateway_servers(mesh):
        for host in server["hosts"]:
            if "/" in host:
                yield f"{name_of(gateway)}: {host} names a namespace"
            for deployment in mesh.workloads_of(gateway):
                key = (name_of(deployment), server["port"]["number"], host.rpartition("/")[2])
                owners[key].append(name_of(gateway))
    for (pods, port, host), names in owners.items():
        if len(names) > 1:
            yield f"{host}:{port} on {pods} is claimed by {', '.join(names)}"


@invariant("15", "A virtual IP is one address that selects nothing, and its port says that it is TCP")
def virtual_ips_are_addresses(mesh: Mesh) -> Iterator[str]:
    for application in mesh.agreed("Application"):
        if application["protocol"] != "TCP":
            continue
        service = mesh.service(application["host"], application["namespace"])
        if service is None or service["kind"] != "Service":
            yield f"no Service for {application['host']}"
            continue
        spec = service["spec"]
        if spec.get("clusterIP") in {"None", ""} or spec.get("type", "ClusterIP") != "ClusterIP":
            yield f"{name_of(service)}: no virtual IP"
        if spec.get("ipFamilyPolicy", "SingleStack") != "SingleStack":
            yield f"{name_of(service)}: a second address, which no route matches"
        if spec.get("selector"):
            yield f"{name_of(service)}: selects Pods"
        for port in spec["ports"]:
            if port.get("appProtocol") != "tcp" or not str(port.get("name", "")).startswith("tcp-"):
                yield f"{name_of(service)}: the protocol of port {port['port']} would be sniffed or misread"


@invariant(
    "16",
    "Made-up hosts have a dot, destinations are written in full; an address is STATIC exactly when it is an IP",
)
def entries_resolve(mesh: Mesh) -> Iterator[str]:
    for entry in mesh.all("ServiceEntry"):
        spec = entry["spec"]
        addresses = [endpoint["address"] for endpoint in spec.get("endpoints") or ()]
        for host in spec["hosts"]:
            if "." not in host or is_ip(host):
                yield f"{name_of(entry)}: {host} is no host with a dot"
        if addresses and (spec["resolution"] == "STATIC") != all(is_ip(address) for address in addresses):
            yield f"{name_of(entry)}: {spec['resolution']} for {addresses}"
        if not addresses and spec["resolution"] == "STATIC":
            yield f"{name_of(entry)}: STATIC without an address"
        if spec["resolution"] == "NONE" and spec["location"] == "MESH_EXTERNAL":
            yield f"{name_of(entry)}: any address would do"
    for item in mesh.all("VirtualService"):
        for destination in destinations(item):
            if "." not in destination["host"]:
                yield f"{name_of(item)}: {destination['host']} is a short name"


@invariant(
    "17",
    "A Sidecar that imports a host by its full name, or ./* for a host of its own namespace, brings all that the host needs",
)
def sidecars_need_one_import(mesh: Mesh) -> Iterator[str]:
    for application in mesh.agreed("Application"):
        if "gateway" in application:
            continue
        host, namespace = application["host"], application["namespace"]
        service = mesh.service(host, namespace)
        if service is None or host != host.lower() or "*" in host:
            yield f"{host} cannot be imported into {namespace}"
            continue
        for route in mesh.mesh_routes(host, namespace):
            if namespace_of(route) != namespace_of(service):
                yield f"{name_of(route)}: an import of {namespace_of(service)}/{host} does not bring it"


@invariant("18", "Keepalive on the public hop comes before the load balancer's idle timeout")
def keepalive_is_in_time(mesh: Mesh) -> Iterator[str]:
    for remote in mesh.agreed("RemoteEndpoint"):
        for rule in _rules_of(mesh, remote["host"]):
            time = tcp_pool(rule).get("tcpKeepalive", {}).get("time", "7200s")
            if int(time.removesuffix("s")) >= remote["idleSeconds"]:
                yield f"{name_of(rule)}: {time}, and the load balancer drops after {remote['idleSeconds']}s"


@invariant("19", "Every server that the mesh calls speaks ISTIO_MUTUAL")
def mesh_servers_are_mutual(mesh: Mesh) -> Iterator[str]:
    for gateway, server in _mesh_facing(mesh):
        if (server.get("tls") or {}).get("mode") != "ISTIO_MUTUAL":
            yield f"{name_of(gateway)}: takes {(server.get('tls') or {}).get('mode', 'plain text')} from the mesh"


@invariant(
    "base-tls", "The cluster without subset is TLS too, so no route that precedes its rule sends plain text"
)
def base_cluster_is_tls(mesh: Mesh) -> Iterator[str]:
    for agreed, rule in _agreed_rules(mesh):
        if ("idleSeconds" in agreed or agreed.get("sni")) and (top_tls(rule) or {}).get("mode") in {
            None,
            "DISABLE",
        }:
            yield f"{name_of(rule)}: the base cluster is plain text"
    for remote in mesh.agreed("RemoteEndpoint"):
        if not _rules_of(mesh, remote["host"]):
            yield f"no rule for {remote['host']}"


@invariant("mutual", "The public hop is MUTUAL: the consumer presents its certificate")
def public_hop_is_mutual(mesh: Mesh) -> Iterator[str]:
    for remote in mesh.agreed("RemoteEndpoint"):
        for rule in _rules_of(mesh, remote["host"]):
            for tls in (top_tls(rule), *(subset_tls(rule, subset) for subset in subsets(rule))):
                if tls is not None and tls.get("mode") != "MUTUAL":
                    yield f"{name_of(rule)}: {tls.get('mode')}"


@invariant(
    "empty-subset",
    "Subsets of an external host are empty: a subset's policy would replace timeouts and keepalive",
)
def subsets_inherit(mesh: Mesh) -> Iterator[str]:
    for rule in _external_rules(mesh):
        for subset in subsets(rule):
            if subset.get("trafficPolicy"):
                yield f"{name_of(rule)}: subset {subset['name']} has a policy"
    for rule in _mesh_rules(mesh):
        for subset in subsets(rule):
            if set(subset.get("trafficPolicy") or {}) - {"tls"}:
                yield f"{name_of(rule)}: subset {subset['name']} has more than TLS"


@invariant(
    "no-wildcard-listener",
    "A TCP entry without address is seen by no application, where it would take 0.0.0.0; an imported host is TLS",
)
def no_wildcard_listener(mesh: Mesh) -> Iterator[str]:
    namespaces = {a["namespace"] for a in mesh.agreed("Application") if "gateway" not in a}
    imported = {remote["host"] for remote in mesh.agreed("RemoteEndpoint")}
    for entry in mesh.all("ServiceEntry"):
        protocols = {port["protocol"] for port in entry["spec"]["ports"]}
        if imported & set(entry["spec"]["hosts"]) and protocols != {"TLS"}:
            yield f"{name_of(entry)}: an imported host is {', '.join(protocols)}, not TLS"
        seen = [namespace for namespace in namespaces if mesh.visible(entry, namespace)]
        if "TCP" in protocols and not entry["spec"].get("addresses") and seen:
            yield f"{name_of(entry)}: TCP without address in {', '.join(sorted(seen))}"


@invariant(
    "declared-protocol", "Every port declares its protocol, in agreement with what its routes do with it"
)
def protocols_are_declared(mesh: Mesh) -> Iterator[str]:
    for service in mesh.all("Service"):
        for port in service["spec"]["ports"]:
            if not port.get("appProtocol"):
                yield f"{name_of(service)}: port {port['port']} has no appProtocol"
    for entry in mesh.all("ServiceEntry"):
        for port in entry["spec"]["ports"]:
            if port["name"].partition("-")[0] != port["protocol"].lower():
                yield f"{name_of(entry)}: port {port['name']} is {port['protocol']}"
    for gateway, server in _gateway_servers(mesh):
        protocol = server["port"]["protocol"]
        needed = "http" if protocol in {"HTTP", "HTTPS"} else "tcp"
        for route in mesh.bound(gateway):
            if protocol not in {"HTTP", "HTTPS", "TLS"} or not route["spec"].get(needed):
                yield f"{name_of(route)}: no {needed} route for the {protocol} server of {name_of(gateway)}"


@invariant("virtual-ip-match", "A mesh route matches exactly the virtual IP and port of its Service")
def mesh_routes_match_the_virtual_ip(mesh: Mesh) -> Iterator[str]:
    for application in mesh.agreed("Application"):
        if application["protocol"] != "TCP":
            continue
        service = mesh.service(application["host"], application["namespace"])
        address = service["spec"].get("clusterIP") if service else None
        block = block_of(address)
        for route in mesh.mesh_routes(application["host"], application["namespace"]):
            for item in route["spec"].get("tcp") or ():
                for match in item.get("match") or [{}]:
                    if match.get("port") != application["port"]:
                        yield f"{name_of(route)}: matches port {match.get('port')}, not {application['port']}"
                    subnets = match.get("destinationSubnets")
                    if subnets is None and mesh.rendered:
                        continue
                    if [block_of(subnet) for subnet in subnets or ()] != [block]:
                        yield f"{name_of(route)}: does not match {block}"


@invariant(
    "verified",
    "No TLS without verification: MUTUAL has a credential, SIMPLE names its CAs, both name the peer",
)
def peers_are_verified(mesh: Mesh) -> Iterator[str]:
    for rule in mesh.all("DestinationRule"):
        for tls in (top_tls(rule), *(subset_tls(rule, subset) for subset in subsets(rule))):
            if tls is None:
                continue
            if not tls.get("subjectAltNames"):
                yield f"{name_of(rule)}: accepts any name"
            if tls.get("mode") == "MUTUAL" and not tls.get("credentialName"):
                yield f"{name_of(rule)}: MUTUAL without a certificate"
            if tls.get("mode") == "SIMPLE" and not (tls.get("credentialName") or tls.get("caCertificates")):
                yield f"{name_of(rule)}: SIMPLE without a CA"
            if tls.get("insecureSkipVerify"):
                yield f"{name_of(rule)}: skips verification"


@invariant("no-ca-crl", "No caCrl beside a credentialName: it is rejected or ignored")
def no_ca_crl(mesh: Mesh) -> Iterator[str]:
    for rule in mesh.all("DestinationRule"):
        if any(
            "caCrl" in (tls or {}) for tls in (top_tls(rule), *(subset_tls(rule, s) for s in subsets(rule)))
        ):
            yield f"{name_of(rule)}: caCrl"
    for gateway, server in _gateway_servers(mesh):
        if "caCrl" in (server.get("tls") or {}):
            yield f"{name_of(gateway)}: caCrl"


@invariant(
    "min-tls",
    "Every server that the outside reaches says its oldest TLS version, the agreed one; TLS 1.3 has no cipher list",
)
def oldest_version_is_said(mesh: Mesh) -> Iterator[str]:
    for gateway, server in _gateway_servers(mesh):
        tls = server.get("tls") or {}
        if tls.get("mode") in {"MUTUAL", "SIMPLE"} and tls.get("minProtocolVersion") not in {
            "TLSV1_2",
            "TLSV1_3",
        }:
            yield f"{name_of(gateway)}: no minProtocolVersion"
        for agreed in mesh.agreed("RemoteConsumers"):
            if agreed["host"] in server["hosts"] and tls.get("minProtocolVersion") != agreed["oldestTls"]:
                yield f"{name_of(gateway)}: {tls.get('minProtocolVersion')}, not {agreed['oldestTls']}"
        if tls.get("minProtocolVersion") == "TLSV1_3" and tls.get("cipherSuites"):
            yield f"{name_of(gateway)}: TLS 1.3 with cipherSuites"


@invariant(
    "guard", "Unless opted out, a gateway of connections opens the upstream only after the client's handshake"
)
def guard_is_there(mesh: Mesh) -> Iterator[str]:
    for gateway in mesh.all("Gateway"):
        if not any(route["spec"].get("tcp") for route in mesh.bound(gateway)):
            continue
        for deployment in mesh.workloads_of(gateway):
            opted_out = any(
                agreed["namespace"] == namespace_of(deployment)
                and agreed["name"] == deployment["metadata"]["name"]
                for agreed in mesh.agreed("Unguarded")
            )
            if not opted_out and not any(_guards(f, deployment) for f in mesh.all("EnvoyFilter")):
                yield f"{name_of(deployment)}: no guard"
    for item in mesh.all("EnvoyFilter"):
        selector = item["spec"].get("workloadSelector", {}).get("labels")
        if not selector or len(mesh.workloads_selected(item, selector)) != 1:
            yield f"{name_of(item)}: does not select one workload"


def _guards(item: Object, deployment: Object) -> bool:
    spec = item["spec"]
    selector = spec.get("workloadSelector", {}).get("labels")
    if namespace_of(item) != namespace_of(deployment) or not selects(selector, pod_labels(deployment)):
        return False
    return any(
        patch["applyTo"] == "NETWORK_FILTER"
        and patch["match"]["context"] == "GATEWAY"
        and patch["match"]["listener"]["filterChain"]["filter"]["name"] == "envoy.filters.network.tcp_proxy"
        and patch["patch"]["operation"] == "MERGE"
        and patch["patch"]["value"]["typed_config"].get("upstream_connect_mode")
        == "ON_DOWNSTREAM_TLS_HANDSHAKE"
        and patch["patch"]["value"]["typed_config"].get("max_early_data_bytes") == 0
        and patch["patch"]["value"]["typed_config"]["@type"].endswith("tcp_proxy.v3.TcpProxy")
        for patch in spec["configPatches"]
    )


@invariant(
    "admission",
    "A gateway admits an endpoint's clients and no other workload; no ALLOW policy closes it for other routes",
)
def only_clients_are_admitted(mesh: Mesh) -> Iterator[str]:
    for gateway, server in _mesh_facing(mesh):
        for host in server["hosts"]:
            clients = [a for a in mesh.agreed("Application") if a["sni"] == host]
            for deployment in mesh.workloads_of(gateway):
                for identity, expected in _probes(mesh, clients):
                    try:
                        known = mesh.admits(deployment, server, identity)
                    except Broken as reason:
                        yield str(reason)
                        continue
                    admitted = known and mesh.denial(deployment, identity, host) is None
                    if admitted != expected:
                        verb = "admits" if admitted else "refuses"
                        yield f"{name_of(gateway)}: {verb} {identity} to {host}"
    for policy in mesh.all("AuthorizationPolicy"):
        if policy["spec"].get("action", "ALLOW") == "ALLOW":
            yield f"{name_of(policy)}: the first ALLOW policy denies every other route"


def _probes(mesh: Mesh, clients: list[dict[str, object]]) -> Iterator[tuple[str, bool]]:
    """SPIFFE IDs to try, and whether they are to be admitted."""
    yield mesh.spiffe(STRANGER, STRANGER), False
    open_namespaces = {client["namespace"] for client in clients if not client["serviceAccounts"]}
    for client in clients:
        namespace = str(client["namespace"])
        accounts = client["serviceAccounts"]
        assert isinstance(accounts, list)
        account = accounts[0] if accounts else "default"
        yield mesh.spiffe(STRANGER, account), False
        yield mesh.spiffe(f"{namespace}-{STRANGER}", account), False
        yield f"spiffe://{STRANGER}.example/ns/{namespace}/sa/{account}", False
        yield mesh.spiffe(namespace, STRANGER), namespace in open_namespaces
        for each in accounts or ["default"]:
            yield mesh.spiffe(namespace, each), True


def _imported(mesh: Mesh) -> Iterator[tuple[Object, Object, str]]:
    """The gateway, server and host of each imported endpoint."""
    for remote in mesh.agreed("RemoteEndpoint"):
        for gateway, server in _mesh_facing(mesh):
            if remote["host"] in server["hosts"]:
                yield gateway, server, str(remote["host"])


@invariant(
    "fails-closed",
    "Of its own an imported endpoint's server admits the listed accounts alone, or nobody: a filter that is missing opens nothing",
)
def servers_fail_closed(mesh: Mesh) -> Iterator[str]:
    for gateway, server, host in _imported(mesh):
        names = set((server.get("tls") or {}).get("subjectAltNames") or ())
        agreed = {
            mesh.spiffe(client["namespace"], account)
            for client in mesh.agreed("Application")
            if client["sni"] == host
            for account in client["serviceAccounts"]
        }
        if not names:
            yield f"{name_of(gateway)}: admits everyone to {host}"
        for name in sorted(names - agreed):
            if LABEL.fullmatch(name.rpartition("/")[2]):
                yield f"{name_of(gateway)}: admits {name} to {host}"


@invariant(
    "handshake",
    "Clients of imported endpoints are told apart in the handshake: a policy acts later, and costs every chain of its gateway",
)
def imports_have_no_policy(mesh: Mesh) -> Iterator[str]:
    for gateway, _, host in _imported(mesh):
        for deployment in mesh.workloads_of(gateway):
            for policy in mesh.all("AuthorizationPolicy"):
                selector = (policy["spec"].get("selector") or {}).get("matchLabels")
                if namespace_of(policy) == namespace_of(deployment) and selects(
                    selector, pod_labels(deployment)
                ):
                    yield f"{name_of(policy)}: stands in the filter chain of {host}"


@invariant(
    "no-mesh-headers",
    "A request that leaves the mesh carries no header that the mesh added, its client's certificate first",
)
def mesh_headers_are_removed(mesh: Mesh) -> Iterator[str]:
    private = {
        "x-forwarded-client-cert",
        "x-forwarded-for",
        "x-envoy-decorator-operation",
        "x-envoy-external-address",
        "x-envoy-attempt-count",
    }
    for name, item in _requests_out(mesh):
        removed = (item.get("headers") or {}).get("request", {}).get("remove") or []
        missing = private - {header.lower() for header in removed}
        if missing:
            yield f"{name}: keeps {', '.join(sorted(missing))}"


def _requests_out(mesh: Mesh) -> Iterator[tuple[str, Object]]:
    external = {
        h
        for e in mesh.all("ServiceEntry")
        if e["spec"]["location"] == "MESH_EXTERNAL"
        for h in e["spec"]["hosts"]
    }
    for route in mesh.all("VirtualService"):
        for item in route["spec"].get("http") or ():
            if any(weighted["destination"]["host"] in external for weighted in item.get("route") or ()):
                yield name_of(route), item


@invariant("authority", "A request that leaves the mesh carries the upstream's own name")
def authority_is_rewritten(mesh: Mesh) -> Iterator[str]:
    for service in mesh.agreed("ExternalService"):
        if service["protocol"] not in {"HTTP", "HTTPS"}:
            continue
        for route in mesh.all("VirtualService"):
            if route["spec"]["hosts"] != [service["proxied"]] or "mesh" in route["spec"]["gateways"]:
                continue
            for item in route["spec"].get("http") or ():
                if (item.get("rewrite") or {}).get("authority") != service["authority"]:
                    yield f"{name_of(route)}: sends {item.get('rewrite')}, not {service['authority']}"


@invariant(
    "strict", "The Pods of an upstream's gateway, and no others, take nothing but mutual TLS from the mesh"
)
def upstream_gateways_are_strict(mesh: Mesh) -> Iterator[str]:
    for service in mesh.agreed("ExternalService"):
        for gateway, server in _mesh_facing(mesh):
            if service["proxied"] not in server["hosts"]:
                continue
            for deployment in mesh.workloads_of(gateway):
                modes = {
                    (p["spec"].get("mtls") or {}).get("mode")
                    for p in mesh.all("PeerAuthentication")
                    if namespace_of(p) == namespace_of(deployment)
                    and selects((p["spec"].get("selector") or {}).get("matchLabels"), pod_labels(deployment))
                }
                if modes != {"STRICT"}:
                    yield f"{name_of(deployment)}: PeerAuthentication {sorted(map(str, modes))}"
    for policy in mesh.all("PeerAuthentication"):
        if not (policy["spec"].get("selector") or {}).get("matchLabels"):
            yield f"{name_of(policy)}: holds for every Pod of the namespace"


@invariant(
    "no-bypass",
    "No application sees a host outside the mesh, so none goes past the gateway; none lives beside one",
)
def applications_see_no_outside(mesh: Mesh) -> Iterator[str]:
    applications = {a["namespace"] for a in mesh.agreed("Application") if "gateway" not in a}
    for entry in mesh.all("ServiceEntry"):
        for namespace in sorted(applications):
            if entry["spec"]["location"] == "MESH_EXTERNAL" and mesh.visible(entry, namespace):
                yield f"{name_of(entry)}: seen by {namespace}"
    for deployment in mesh.gateways():
        if namespace_of(deployment) in applications:
            yield f"{name_of(deployment)}: beside applications"


@invariant(
    "upstream-tls",
    "TLS to an upstream sends the agreed SNI and checks the agreed names, with the agreed credential",
)
def upstream_tls_is_as_agreed(mesh: Mesh) -> Iterator[str]:
    for service, rule in _upstream_rules(mesh):
        tls = top_tls(rule) or {}
        found = (
            tls.get("sni"),
            tls.get("subjectAltNames") or [],
            tls.get("credentialName"),
            tls.get("mode") == "MUTUAL",
        )
        if found != (service["sni"], service["names"], service["private"], service["presents"]):
            yield f"{name_of(rule)}: {found}"


@invariant(
    "pod",
    "A gateway's Pod is made by the injector from the gateway template; no probe of ours stands on istio-proxy; it is restricted,"
    " and outlives its connections' drain",
)
def pods_are_injected(mesh: Mesh) -> Iterator[str]:
    for deployment in mesh.gateways():
        template = deployment["spec"]["template"]
        name = name_of(deployment)
        if template["metadata"]["annotations"].get("inject.istio.io/templates") != "gateway":
            yield f"{name}: not the gateway template"
        if template["metadata"]["labels"].get("sidecar.istio.io/inject") != "true":
            yield f"{name}: not injected"
        if not selects(deployment["spec"]["selector"]["matchLabels"], pod_labels(deployment)):
            yield f"{name}: does not select its own Pods"
        containers = {container["name"]: container for container in template["spec"]["containers"]}
        proxy = containers.get("istio-proxy", {})
        if proxy.get("image") != "auto":
            yield f"{name}: istio-proxy is not left to the injector"
        for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
            if probe in proxy:
                yield f"{name}: {probe} on istio-proxy meets the template's, and the API server refuses two handlers"
        for container in containers.values():
            handlers = {"exec", "httpGet", "tcpSocket", "grpc"} & set(container.get("readinessProbe") or {})
            if "readinessProbe" in container and len(handlers) != 1:
                yield f"{name}: container {container['name']} has a probe with {len(handlers)} handlers"
        sysctls = {
            s["name"]: s["value"] for s in template["spec"].get("securityContext", {}).get("sysctls", ())
        }
        if sysctls.get("net.ipv4.ip_unprivileged_port_start") != "0":
            yield f"{name}: may not bind low ports"
        account = (namespace_of(deployment), service_account(deployment))
        if account not in {(namespace_of(a), a["metadata"]["name"]) for a in mesh.all("ServiceAccount")}:
            yield f"{name}: no ServiceAccount {account[1]}"
    for deployment in mesh.created:
        yield from _unfit(deployment)


def _unfit(deployment: Object) -> Iterator[str]:
    """What a cluster's baseline, or the end of a Pod, would not take of a Deployment of ours."""
    pod = deployment["spec"]["template"]["spec"]
    restricted = {"allowPrivilegeEscalation": False, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}}
    for container in pod["containers"]:
        context = container.get("securityContext") or {}
        if any(context.get(key) != value for key, value in restricted.items()):
            yield f"{name_of(deployment)}: container {container['name']} may more than it needs"
    said = deployment["spec"]["template"]["metadata"]["annotations"].get("proxy.istio.io/config", "")
    settings = yaml.safe_load(said) or {}
    if "terminationDrainDuration" not in settings:
        yield f"{name_of(deployment)}: cuts open connections after Istio's 5 s"
    drain = int(settings.get("terminationDrainDuration", "5s").removesuffix("s"))
    if pod.get("terminationGracePeriodSeconds", 30) <= drain:
        yield f"{name_of(deployment)}: is killed before its connections have drained for {drain} s"


@invariant(
    "kept-up",
    "A disruption budget, of one Pod at a time, and an autoscaler, of what containers request, hold each gateway that the stack"
    " creates, and no other Pods",
)
def gateways_are_kept_up(mesh: Mesh) -> Iterator[str]:
    for kind in ("PodDisruptionBudget", "HorizontalPodAutoscaler"):
        counts: Counter[str] = Counter()
        for item in mesh.all(kind):
            if kind == "PodDisruptionBudget":
                held = mesh.workloads_selected(item, item["spec"]["selector"]["matchLabels"])
                if item["spec"].get("maxUnavailable") != 1:
                    yield f"{name_of(item)}: lets {item['spec'].get('maxUnavailable')} go at once"
            else:
                target = item["spec"]["scaleTargetRef"]["name"]
                held = [
                    d
                    for d in mesh.all("Deployment")
                    if namespace_of(d) == namespace_of(item) and d["metadata"]["name"] == target
                ]
                yield from _unmeasured(item, held)
            counts.update(name_of(deployment) for deployment in held)
            if len(held) != 1:
                yield f"{name_of(item)}: holds {len(held)} workloads"
        for deployment in mesh.created:
            if counts[name_of(deployment)] != 1:
                yield f"{name_of(deployment)}: {counts[name_of(deployment)]} objects of the kind {kind}"


def _unmeasured(autoscaler: Object, held: Iterable[Object]) -> Iterator[str]:
    """The containers whose share of a request an autoscaler cannot tell: one is enough, and it never scales."""
    for deployment in held:
        containers = deployment["spec"]["template"]["spec"]["containers"]
        for metric in autoscaler["spec"]["metrics"]:
            kind = "containerResource" if metric["type"] == "ContainerResource" else "resource"
            only = metric[kind].get("container")
            measured = [c for c in containers if only in (None, c["name"])]
            for container in measured:
                requests = (container.get("resources") or {}).get("requests") or {}
                if metric[kind]["name"] not in requests:
                    yield f"{name_of(autoscaler)}: {container['name']} requests no {metric[kind]['name']}"
            if not measured:
                yield f"{name_of(autoscaler)}: there is no container {only}"


@invariant("own-names", "No two objects of a kind have one name in a namespace")
def names_are_unique(mesh: Mesh) -> Iterator[str]:
    counts = Counter(name_of(item) for item in mesh.objects if item["apiVersion"] != "outside/v1")
    for name, count in counts.items():
        if count > 1:
            yield f"{name}: {count} times"
    for item in mesh.all("Service"):
        ports = [(port["port"], port.get("protocol", "TCP")) for port in item["spec"]["ports"]]
        names = [port.get("name") for port in item["spec"]["ports"]]
        if len(set(ports)) != len(ports) or len(set(names)) != len(names):
            yield f"{name_of(item)}: ports repeat"


@invariant("no-keys", "The stack makes no Secret with a private key: only CA certificates")
def no_key_is_made(mesh: Mesh) -> Iterator[str]:
    for secret in mesh.all("Secret"):
        if set(secret.get("stringData") or {}) - {"ca.crt"}:
            yield f"{name_of(secret)}: {sorted(secret['stringData'])}"


@invariant("mesh-peer", "A sidecar accepts the gateway by its workload identity, and by nothing else")
def gateway_is_named(mesh: Mesh) -> Iterator[str]:
    for rule in _mesh_rules(mesh):
        service = mesh.service(rule["spec"]["host"], namespace_of(rule))
        peers = [
            mesh.spiffe(namespace_of(d), service_account(d)) for d in (mesh.pods(service) if service else [])
        ]
        for subset in subsets(rule):
            names = (subset_tls(rule, subset) or {}).get("subjectAltNames")
            if names != peers:
                yield f"{name_of(rule)}: expects {names}, not {peers}"


@invariant(
    "opa",
    "Where an upstream asks OPA, its policy covers every request and its provider finds exactly one service, in the Pod",
)
def opa_is_asked(mesh: Mesh) -> Iterator[str]:
    for service in mesh.agreed("ExternalService"):
        for gateway, server in _mesh_facing(mesh):
            if not service["opa"] or service["proxied"] not in server["hosts"]:
                continue
            for deployment in mesh.workloads_of(gateway):
                port = server["port"]["number"]
                if not any(_asks_opa(mesh, p, deployment, port) for p in mesh.all("AuthorizationPolicy")):
                    yield f"{name_of(deployment)}: asks no OPA"


def _covers(rule: Object, port: int) -> bool:
    """Whether a rule of an AuthorizationPolicy matches every request on a port."""
    operations = [item["operation"] for item in rule.get("to") or ()] or [{}]
    return set(rule) <= {"to"} and any(
        set(operation) <= {"ports"} and str(port) in operation.get("ports", [str(port)])
        for operation in operations
    )


def _asks_opa(mesh: Mesh, policy: Object, deployment: Object, port: int) -> bool:
    spec = policy["spec"]
    provider = mesh.extension_providers.get((spec.get("provider") or {}).get("name", ""))
    if (
        spec.get("action") != "CUSTOM"
        or provider is None
        or namespace_of(policy) != namespace_of(deployment)
        or not selects((spec.get("selector") or {}).get("matchLabels"), pod_labels(deployment))
        or not any(_covers(rule, port) for rule in spec.get("rules") or ())
    ):
        return False
    namespace, _, host = provider["service"].partition("/")
    entries = [entry for entry in _entries_of(mesh, host) if namespace_of(entry) == namespace]
    address = f"127.0.0.1:{provider['port']}"
    listening = any(
        address in argument
        for container in deployment["spec"]["template"]["spec"]["containers"]
        for argument in container.get("args") or ()
    )
    found = [
        (endpoint["address"], port["number"])
        for entry in entries
        for port in entry["spec"]["ports"]
        for endpoint in entry["spec"].get("endpoints") or ()
    ]
    return listening and found == [("127.0.0.1", provider["port"])]


@invariant("confined", "Pods of a confined namespace reach the cluster and nothing else")
def confined_namespaces_stay_inside(mesh: Mesh) -> Iterator[str]:
    for agreed in mesh.agreed("Confined"):
        policies = [
            p
            for p in mesh.all("NetworkPolicy")
            if namespace_of(p) == agreed["namespace"]
            and not p["spec"]["podSelector"]
            and "Egress" in p["spec"]["policyTypes"]
        ]
        if not policies or any(policy_permits(p, "Egress", {"ip": PUBLIC}, 443) for p in policies):
            yield f"{agreed['namespace']}: may reach {PUBLIC}"
        if not any(policy_permits(p, "Egress", {"namespace": "kube-system"}, 53) for p in policies):
            yield f"{agreed['namespace']}: may not reach the cluster"


@invariant("limits", "Agreed limits stand in the top-level connection pool, beside a connect timeout")
def limits_are_effective(mesh: Mesh) -> Iterator[str]:
    for agreed, rule in _agreed_rules(mesh):
        pool = tcp_pool(rule)
        known = {
            key: pool[key]
            for key in ("maxConnections", "idleTimeout", "maxConnectionDuration")
            if key in pool
        }
        if known != agreed["limits"]:
            yield f"{name_of(rule)}: {known}, not {agreed['limits']}"
        if "connectTimeout" not in pool:
            yield f"{name_of(rule)}: no connectTimeout"
    ruled = [agreed for agreed, _ in _agreed_rules(mesh)]
    served = {host for _, server in _gateway_servers(mesh) for host in server["hosts"]}
    for kind in ("RemoteEndpoint", "RemoteConsumers", "ExternalService"):
        for agreed in mesh.agreed(kind):
            host = agreed.get("host") or agreed["proxied"]
            if agreed["limits"] and host in served and agreed not in ruled:
                yield f"{host}: no rule limits it"
    for agreed in mesh.agreed("SidecarLimits"):
        pools = [
            tcp_pool(rule)
            for rule in _rules_of(mesh, str(agreed["host"]))
            if namespace_of(rule) == agreed["namespace"] and rule["spec"].get("trafficPolicy")
        ]
        if agreed["limits"] not in pools:
            yield f"{agreed['namespace']}: {pools} towards {agreed['host']}, not {agreed['limits']}"


def _ends(mesh: Mesh, deployment: Object) -> Iterator[tuple[list[str], int]]:
    """The networks and the port of each end that a gateway's connections may have; a name may be anywhere."""
    hosts = {host for g in mesh.gateways_on(deployment) for s in servers(g) for host in s["hosts"]}
    for remote in mesh.agreed("RemoteEndpoint"):
        if remote["host"] in hosts:
            yield ["0.0.0.0/0"], remote["port"]
    for service in mesh.agreed("ExternalService"):
        if service["proxied"] in hosts:
            yield service["networks"], service["port"]
    for agreed in mesh.agreed("RemoteConsumers"):
        address, _, port = agreed["end"].rpartition(":")
        if agreed["host"] in hosts:
            yield [address if is_ip(address) else "0.0.0.0/0"], int(port)


@invariant(
    "closed",
    "A gateway that the stack creates takes no connection but on agreed ports, one that the mesh calls none from outside the"
    " cluster, and makes none but agreed ones",
)
def gateways_are_closed(mesh: Mesh) -> Iterator[str]:
    called = [d for gateway, _ in _mesh_facing(mesh) for d in mesh.workloads_of(gateway)]
    for deployment in mesh.created:
        name = name_of(deployment)
        listening = {s["port"]["number"] for g in mesh.gateways_on(deployment) for s in servers(g)}
        ends = list(_ends(mesh, deployment))
        spare = next(n for n in range(6666, 7777) if n not in {*listening, *(port for _, port in ends)})
        for peer in ({"ip": PUBLIC}, {"namespace": STRANGER}):
            if mesh.permitted(deployment, "Ingress", peer, spare):
                yield f"{name}: takes connections on port {spare}"
        if deployment in called:
            for port in listening:
                if mesh.permitted(deployment, "Ingress", {"ip": PUBLIC}, port):
                    yield f"{name}: port {port} is open to {PUBLIC}"
            for service in mesh.services_of(deployment):
                if service["spec"].get("type", "ClusterIP") != "ClusterIP":
                    yield f"{name_of(service)}: shows {name} outside the cluster"
        for port in {spare, 15012, *(port for _, port in ends)}:
            agreed = any(
                port == number and any(_is_within(PUBLIC, network) for network in networks)
                for networks, number in ends
            )
            if not agreed and mesh.permitted(deployment, "Egress", {"ip": PUBLIC}, port):
                yield f"{name}: may connect to {PUBLIC}:{port}"


def _is_within(address: str, network: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(network)


@invariant(
    "https",
    "From outside an upstream is reached by HTTPS with the agreed certificate, and plain HTTP is sent there",
)
def entries_are_https(mesh: Mesh) -> Iterator[str]:
    for application in mesh.agreed("Application"):
        for gateway, server in _gateway_servers(mesh):
            if application["host"] not in server["hosts"] or gateway["spec"].get(
                "selector"
            ) != application.get("gateway"):
                continue
            tls = server.get("tls") or {}
            if server["port"]["protocol"] == "HTTP":
                if not tls.get("httpsRedirect"):
                    yield f"{name_of(gateway)}: serves {application['host']} in plain text"
            elif (tls.get("mode"), tls.get("credentialName")) != ("SIMPLE", application["certificate"]):
                yield f"{name_of(gateway)}: {tls}, not the certificate {application['certificate']}"


@invariant("health", "Network policies let the kubelet, DNS, istiod and Prometheus through to the gateway")
def gateways_stay_healthy(mesh: Mesh) -> Iterator[str]:
    for deployment in mesh.gateways():
        needs = [
            ("Ingress", {"ip": "10.0.0.1"}, 15021),
            ("Ingress", {"ip": "10.0.0.1"}, 15090),
            ("Egress", {"namespace": "kube-system"}, 53),
            ("Egress", {"namespace": mesh.root}, 15012),
        ]
        for direction, peer, port in needs:
            if not mesh.permitted(deployment, direction, peer, port):
                yield f"{name_of(deployment)}: {direction} {port} is closed"


@invariant(
    "reach",
    "Every agreed connection gets through to its end: routes, ports, names, rights and network policies",
)
def connections_arrive(mesh: Mesh) -> Iterator[str]:
    for application in mesh.agreed("Application"):
        for account in application["serviceAccounts"] or ["default"]:
            where = f"{application['namespace']}/{account} to {application['host']}:{application['port']}"
            try:
                end = mesh.end_of(application, account)
            except Broken as reason:
                yield f"{where}: {reason}"
                continue
            if end != application["end"]:
                yield f"{where}: ends at {end}, not {application['end']}"
    for agreed in mesh.agreed("RemoteConsumers"):
        for gateway, server in _gateway_servers(mesh):
            if agreed["host"] not in server["hosts"]:
                continue
            for deployment in mesh.workloads_of(gateway):
                if not mesh.permitted(deployment, "Ingress", {"ip": PUBLIC}, agreed["port"]):
                    yield f"{agreed['host']}: network policies keep consumers from {name_of(deployment)}"
                try:
                    end = mesh.end_behind(deployment, gateway, server, agreed["host"])
                except Broken as reason:
                    yield f"{agreed['host']}: {reason}"
                    continue
                if end != agreed["end"]:
                    yield f"{agreed['host']}: ends at {end}, not {agreed['end']}"


CONTROLLER = "service.beta.kubernetes.io/aws-load-balancer-"
READINESS = {"protocol": "HTTP", "port": "15021", "path": "/healthz/ready"}


def _entries(mesh: Mesh) -> Iterator[tuple[dict[str, object], list[Object]]]:
    """What was agreed about the entry, with the Services of the gateway's namespace that a load balancer serves."""
    for entry in mesh.agreed("PublicEntry"):
        yield (
            entry,
            [
                service
                for service in mesh.all("Service")
                if namespace_of(service) == entry["namespace"]
                and service["spec"].get("type") == "LoadBalancer"
            ],
        )


def _annotated(service: Object, name: str) -> str:
    return str(service["metadata"].get("annotations", {}).get(CONTROLLER + name, ""))


def _attributes(text: str) -> dict[str, str]:
    return dict(item.split("=", 1) for item in text.split(",") if "=" in item)


def _bound_to(mesh: Mesh, group: object, port: object) -> Iterator[str]:
    """What keeps the gateway's Pods out of a target group."""
    bindings = [b for b in mesh.all("TargetGroupBinding") if b["spec"]["targetGroupARN"] == group]
    if len(bindings) != 1:
        yield f"{len(bindings)} bindings to {group}"
    for binding in bindings:
        reference = binding["spec"]["serviceRef"]
        served = [
            service
            for service in mesh.all("Service")
            if namespace_of(service) == namespace_of(binding)
            and service["metadata"]["name"] == reference["name"]
            and any(item["port"] == reference["port"] == port for item in service["spec"]["ports"])
        ]
        if binding["spec"].get("targetType") != "ip" or not any(mesh.pods(service) for service in served):
            yield f"{name_of(binding)}: registers no Pod on port {port}"


@invariant(
    "entry",
    "What clients reach leads their connections, TLS unopened, to the public port of the gateway's Pods that are ready",
)
def entry_leads_to_the_gateway(mesh: Mesh) -> Iterator[str]:
    for entry, services in _entries(mesh):
        for service in services:
            if _annotated(service, "ssl-cert") or _annotated(service, "backend-protocol") in {"ssl", "tls"}:
                yield f"{name_of(service)}: the load balancer ends the TLS"
        if entry["balancer"] == "aws_controller":
            yield from _controlled(entry, services)
        elif entry["balancer"] == "aws_nlb":
            yield from _own(mesh, entry)
        elif entry["group"] is not None:
            yield from _bound_to(mesh, entry["group"], entry["port"])


def _controlled(entry: dict[str, object], services: list[Object]) -> Iterator[str]:
    if len(services) != 1:
        yield f"{len(services)} load-balancer Services"
    for service in services:
        asked = {key: _annotated(service, f"healthcheck-{key}") for key in READINESS}
        if service["spec"].get("loadBalancerClass") != "service.k8s.aws/nlb":
            yield f"{name_of(service)}: is another controller's"
        if _annotated(service, "nlb-target-type") != "ip" or asked != {**READINESS, "protocol": "http"}:
            yield f"{name_of(service)}: targets are not the Pods that are ready"
        if service["spec"].get("allocateLoadBalancerNodePorts") is not False:
            yield f"{name_of(service)}: opens a port on every node"
        if entry["port"] not in {item["port"] for item in service["spec"]["ports"]}:
            yield f"{name_of(service)}: not port {entry['port']}"


def _own(mesh: Mesh, entry: dict[str, object]) -> Iterator[str]:
    (balancer,) = mesh.all("LoadBalancer")
    if balancer["spec"].get("loadBalancerType") != "network":
        yield f"{name_of(balancer)}: is no Network Load Balancer"
    listeners = [
        item["spec"]
        for item in mesh.all("Listener")
        if item["spec"]["loadBalancerArn"] == balancer["status"]["arn"]
    ]
    if [(item["protocol"], item["port"]) for item in listeners] != [("TCP", entry["port"])]:
        yield f"{name_of(balancer)}: does not pass TCP on port {entry['port']} through"
    groups = {group["status"]["arn"]: group["spec"] for group in mesh.all("TargetGroup")}
    for item in listeners:
        for action in item["defaultActions"]:
            group = groups.get(action["targetGroupArn"])
            if group is None or (group["protocol"], group["targetType"]) != ("TCP", "ip"):
                yield f"{name_of(balancer)}: forwards to no group of Pods"
            elif group["healthCheck"] != READINESS:
                yield f"{name_of(balancer)}: does not ask for readiness"
            yield from _bound_to(mesh, action["targetGroupArn"], entry["port"])


@invariant(
    "client-address",
    "The client's address is told in the agreed way alone; PROXY protocol is spoken at both ends or at neither",
)
def client_address_is_told_once(mesh: Mesh) -> Iterator[str]:
    for entry, services in _entries(mesh):
        told = [
            (spec.get("preserveClientIp") == "true", bool(spec.get("proxyProtocolV2")))
            for spec in (group["spec"] for group in mesh.all("TargetGroup"))
        ]
        if entry["balancer"] == "aws_controller":
            attributes = [_attributes(_annotated(s, "target-group-attributes")) for s in services]
            told = [
                (a.get("preserve_client_ip.enabled") == "true", a.get("proxy_protocol_v2.enabled") == "true")
                for a in attributes
            ]
        agreed = (entry["tells"] == "preserve", entry["tells"] == "proxy-protocol")
        if entry["tells"] is not None and told != [agreed]:
            yield f"(preserved, PROXY protocol): {told}, not {agreed}"
        sends = agreed[1] or bool(entry["theirs"])
        for deployment in mesh.all("Deployment") if not entry["adopted"] else ():
            public = any(
                server["port"]["number"] == entry["port"] and server["tls"].get("mode") == "MUTUAL"
                for gateway in mesh.gateways_on(deployment)
                for server in servers(gateway)
            )
            if public and namespace_of(deployment) == entry["namespace"]:
                yield from _expectation(deployment, sends=sends)


def _expectation(deployment: Object, *, sends: bool) -> Iterator[str]:
    template = deployment["spec"]["template"]
    said = template["metadata"]["annotations"].get("proxy.istio.io/config", "")
    environment = {item["name"]: item["value"] for item in template["spec"]["containers"][0].get("env", ())}
    on_status = environment.get("ENVOY_STATUS_PORT_ENABLE_PROXY_PROTOCOL") == "true"
    if ('"proxyProtocol"' in said, on_status) != (sends, sends):
        yield f"{name_of(deployment)}: PROXY protocol is {'sent' if sends else 'not sent'}, expected otherwise"


@invariant(
    "firewall",
    "The load balancer admits the agreed networks to the public port, and the Pods admit it to that and to readiness",
)
def firewall_admits_the_agreed(mesh: Mesh) -> Iterator[str]:
    for entry, services in _entries(mesh):
        networks = _listed(entry["networks"])
        if entry["balancer"] == "aws_controller":
            found = [service["spec"].get("loadBalancerSourceRanges", []) for service in services]
            if found != [networks]:
                yield f"the Service admits {found}, not {networks}"
        if entry["balancer"] != "aws_nlb":
            continue
        (balancer,) = mesh.all("LoadBalancer")
        (group,) = balancer["spec"]["securityGroups"]
        anywhere = ["0.0.0.0/0", *(["::/0"] if entry["dualstack"] else [])]
        admitted = _rules(mesh, "SecurityGroupIngressRule", group)
        if admitted != {(network, entry["port"]) for network in networks or anywhere}:
            yield f"{group} admits {sorted(admitted)}"
        needed = {entry["port"], 15021}
        if {port for _, port in _rules(mesh, "SecurityGroupEgressRule", group)} != needed:
            yield f"{group} does not let the load balancer reach the Pods on {sorted(map(str, needed))}"
        for binding in mesh.all("TargetGroupBinding"):
            rules = binding["spec"].get("networking", {}).get("ingress", ())
            opened = [
                (peer.get("securityGroup", {}).get("groupID"), port["port"])
                for rule in rules
                for peer in rule["from"]
                for port in rule["ports"]
            ]
            if set(opened) != {(group, port) for port in needed}:
                yield f"{name_of(binding)}: opens the Pods to {opened}"


def _listed(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []


def _rules(mesh: Mesh, kind: str, group: object) -> set[tuple[object, object]]:
    specs = [item["spec"] for item in mesh.all(kind)]
    return {
        (spec.get("cidrIpv4") or spec.get("cidrIpv6"), spec["toPort"])
        for spec in specs
        if spec["securityGroupId"] == group and spec["fromPort"] == spec["toPort"]
    }


@invariant("wildcard", "The wildcard record leads to the load balancer, and is made by whom it was agreed")
def wildcard_leads_to_the_entry(mesh: Mesh) -> Iterator[str]:
    for entry, services in _entries(mesh):
        name = f"*.{entry['domain']}"
        asked = [
            {
                key: value
                for key, value in service["metadata"].get("annotations", {}).items()
                if "external-dns" in key
            }
            for service in mesh.all("Service")
        ]
        asked = [annotations for annotations in asked if annotations]
        endpoints = [e for item in mesh.all("DNSEndpoint") for e in item["spec"]["endpoints"]]
        records = [item["spec"] for item in mesh.all("Record")]
        made = {"route53": records, "service": asked, "dns-endpoint": endpoints}
        wanted = entry["source"] or entry["record"]
        others = sorted(who for who, items in made.items() if items and who != wanted)
        if others:
            yield f"{name} is made by {others}"
        if wanted == "route53":
            yield from _route53(entry, name, records)
        if wanted == "service":
            hosts = {
                value for annotations in asked for key, value in annotations.items() if "hostname" in key
            }
            if hosts != {name} or len(services) != 1 or len(asked) != 1:
                yield f"external-dns is asked for {sorted(hosts)}"
        if wanted == "dns-endpoint":
            found = [(e["dnsName"], e["recordType"], e["targets"]) for e in endpoints]
            address = str(_address(entry))
            if found != [(name, _type_of(address), [address])]:
                yield f"external-dns is asked for {found}"


def _address(entry: dict[str, object]) -> object:
    known = {"aws_nlb": OWN_ADDRESS, "existing": entry["address"] or EXISTING_ADDRESS}
    return known.get(str(entry["balancer"]), SERVICE_ADDRESS)


def _type_of(address: str) -> str:
    if not is_ip(address):
        return "CNAME"
    return "AAAA" if ":" in address else "A"


def _route53(entry: dict[str, object], name: str, records: list[Object]) -> Iterator[str]:
    address = str(_address(entry))
    if any((record["name"], record["zoneId"]) != (name, ZONE) for record in records):
        yield f"a record is not {name} in {ZONE}"
    kinds = sorted(record["type"] for record in records)
    if entry["balancer"] == "service" or entry["address"] is not None:
        if kinds != [_type_of(address)] or [record.get("records") for record in records] != [[address]]:
            yield f"{name} does not lead to {address}: {records}"
        return
    targets = {(a["name"], a["zoneId"]) for record in records for a in record.get("aliases", ())}
    expected = ["A", "AAAA"] if entry["dualstack"] else ["A"]
    if kinds != expected or targets != {(address, NLB_ZONE)}:
        yield f"{name} ({kinds}) is an alias of {targets}"
