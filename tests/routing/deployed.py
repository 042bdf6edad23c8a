"""All objects of a cluster after `up`: what the real components register, and what they presuppose.

What a stack presupposes is made from its configuration: gateways that it adopts, certificates that it refers to,
and, as objects of the API group `outside`, what was agreed with the far side. Invariants hold between the two.

Kinds of `outside/v1`: MeshConfig; Application (who may address what, and where that must end); RemoteEndpoint (a
provider's public endpoint and its certificate); SidecarLimits (of a namespace's sidecars towards a host); PublicEntry (what leads clients to the ingress gateway); RemoteConsumers (who may call a public host, and what it offers);
ExternalService (an upstream); Broker (the workload that is no gateway); WildcardRecord (DNS); Unguarded (a gateway that does without the guard); Confined (a
namespace that may reach the cluster alone).
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pulumi
from pulumi.runtime import MockCallArgs, MockResourceArgs, Mocks

import config
from components import declare_stack
from config import Stack
from tests.components.recorder import unlocated

Object = dict[str, Any]

OUTSIDE = "outside/v1"
AWS = "aws/v1"
"""API version of the objects that stand for resources of AWS."""

OWN_ADDRESS = "own.elb.example"
SERVICE_ADDRESS = "service.elb.example"
EXISTING_ADDRESS = "existing.elb.example"
NLB_ZONE = "ZNLB00000"
ZONE = "ZZONE0000"

LOOKED_UP: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "getSubnet": lambda given: {"vpcId": "vpc-1", "availabilityZone": given["id"]},
    "getZone": lambda given: {"zoneId": ZONE, "name": given["name"], "privateZone": given["privateZone"]},
    "getRecords": lambda _: {"resourceRecordSets": []},
    "getHostedZoneId": lambda _: {"id": NLB_ZONE},
    "getLoadBalancer": lambda given: {
        "arn": given["arn"],
        "dnsName": EXISTING_ADDRESS,
        "zoneId": NLB_ZONE,
        "loadBalancerType": "network",
    },
}
"""What the functions of Pulumi's AWS provider return."""

FIRST_ADDRESS = {"IPv4": "10.96.7.{}", "IPv6": "fd00:7::{:x}"}


def deploy(data: Mapping[str, object], references: Mapping[str, object] | None = None) -> list[Object]:
    """The objects of the stack `data` and its surroundings. `references` are outputs `provider` of other stacks."""
    stack = config.parse(data)
    objects = registered(stack, references or {})
    return [*objects, *surroundings(stack, references or {}), *_namesakes(objects)]


def registered(stack: Stack, references: Mapping[str, object]) -> list[Object]:
    """The Kubernetes objects that the components register, as the API server would hold them."""
    recorder = _Recorder(stack, references)

    def isolated() -> None:
        # Pulumi's mocks make an event loop, and never close it, in every thread that has none.
        loop, spare = asyncio.new_event_loop(), asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        with ThreadPoolExecutor(1, initializer=asyncio.set_event_loop, initargs=(spare,)) as executor:
            loop.set_default_executor(executor)
            try:
                pulumi.runtime.set_mocks(recorder)
                with unlocated():
                    pulumi.runtime.test(lambda: declare_stack(stack))()  # type: ignore[no-untyped-call]
            finally:
                asyncio.set_event_loop(None)
                loop.close()
        spare.close()

    with ThreadPoolExecutor(1) as own_thread:
        own_thread.submit(contextvars.copy_context().run, isolated).result()
    return [recorder.objects[name] for name in sorted(recorder.objects)]


class _Recorder(Mocks):
    def __init__(self, stack: Stack, references: Mapping[str, object]) -> None:
        self.objects: dict[str, Object] = {}
        self._family = stack.cluster.ip_family
        self._references = references
        balancer = stack.provider.load_balancer if stack.provider is not None else None
        self._existing = balancer.existing if balancer is not None else None

    def call(self, args: MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]]]:
        function = args.token.rpartition(":")[2]
        found = LOOKED_UP[function](args.args)
        if function == "getLoadBalancer" and self._existing is not None:
            found["ipAddressType"] = self._existing.ip_address_type
        return found, []

    def new_resource(self, args: MockResourceArgs) -> tuple[str, dict[Any, Any]]:
        if args.typ == "pulumi:pulumi:StackReference":
            outputs = {"provider": self._references[args.inputs["name"]]}
            return args.name, {"name": args.inputs["name"], "outputs": outputs}
        if args.typ.startswith("aws:"):
            return args.name, self._in_aws(args)
        if not args.typ.startswith("kubernetes:"):
            return args.name, {}
        state = _whole(args.inputs)
        state.pop("status", None)
        address = FIRST_ADDRESS[self._family].format(len(self.objects) + 1)
        if state["kind"] == "Service":
            state["spec"] = {"clusterIP": address, **state["spec"]}
            if state["spec"].get("type") == "LoadBalancer":
                state["status"] = {"loadBalancer": {"ingress": [{"hostname": SERVICE_ADDRESS}]}}
        self.objects[args.name] = state
        return args.name, state

    def _in_aws(self, args: MockResourceArgs) -> dict[str, Any]:
        """A resource of AWS, kept as an object whose spec is its inputs and whose status is what AWS adds."""
        kind = args.typ.rpartition(":")[2]
        known = {"arn": f"arn:{args.name}/0123456789abcdef"}
        if kind == "LoadBalancer":
            known |= {"dnsName": OWN_ADDRESS, "zoneId": NLB_ZONE}
        spec = {key: value for key, value in _whole(args.inputs).items() if value is not None}
        self.objects[f"{kind} {args.name}"] = {
            "apiVersion": AWS,
            "kind": kind,
            "metadata": {"name": args.name},
            "spec": spec,
            "status": {"id": args.name, **known},
        }
        return {**args.inputs, **known}


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return value


def surroundings(stack: Stack, references: Mapping[str, object]) -> Iterator[Object]:
    """What the stack presupposes."""
    yield _outside(
        "MeshConfig",
        trustDomain=stack.cluster.trust_domain,
        rootNamespace=stack.cluster.mesh_namespace,
        rendered=stack.cluster.render,
        extensionProviders={
            u.opa.extension_provider: {"service": f"{u.namespace}/opa.local", "port": u.opa.port}
            for u in stack.upstreams
            if u.opa is not None
        },
    )
    if stack.consumer is not None:
        yield from _around_consumer(stack, stack.consumer, references)
    if stack.provider is not None:
        yield from _around_provider(stack, stack.provider)
    if stack.broker is not None:
        yield from _around_broker(stack, stack.broker, references)
    for upstream in stack.upstreams:
        yield from _around_upstream(stack, upstream)
    entries = {
        (u.ingress.namespace, u.ingress.service_account): u.ingress for u in stack.upstreams if u.ingress
    }
    for entry in entries.values():
        listening = {"http": entry.http_port, "https": entry.https_port}
        yield from _gateway(
            "ingress", entry.namespace, entry.service_account, entry.labels, listening, with_rights=True
        )


def _namesakes(objects: Iterable[Object]) -> Iterator[Object]:
    """The gateways of another stack of the cluster that gave its own the same names, in other namespaces."""
    for item in objects:
        template = item["spec"]["template"] if item["kind"] == "Deployment" else {"metadata": {}}
        if "inject.istio.io/templates" not in template["metadata"].get("annotations", {}):
            continue
        metadata, account = item["metadata"], template["spec"]["serviceAccountName"]
        name, here, there = metadata["name"], metadata["namespace"], f"namesakes-of-{metadata['namespace']}"
        labels = {k: there if v == here else v for k, v in template["metadata"]["labels"].items()}
        (proxy,) = [c for c in template["spec"]["containers"] if c["image"] == "auto"]
        ports = {port["name"]: port["containerPort"] for port in proxy["ports"]}
        yield from _gateway(name, there, account, labels, ports, with_rights=True)


def _outside(kind: str, **spec: object) -> Object:
    return {"apiVersion": OUTSIDE, "kind": kind, "metadata": {"name": kind}, "spec": spec}


def _object(kind: str, name: str, namespace: str, **body: object) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, **body}


def _secret(name: str, namespace: str, certificates: str) -> Object:
    return _object("Secret", name, namespace, data={"tls.crt": "…", "tls.key": "…", "ca.crt": certificates})


def _gateway(
    name: str,
    namespace: str,
    service_account: str,
    labels: Mapping[str, str],
    ports: Mapping[str, int],
    *,
    with_rights: bool = False,
) -> Iterator[Object]:
    """A gateway of another owner."""
    pod = {
        "metadata": {
            "labels": {**labels, "sidecar.istio.io/inject": "true"},
            "annotations": {"inject.istio.io/templates": "gateway"},
        },
        "spec": {
            "serviceAccountName": service_account,
            "containers": [{"name": "istio-proxy", "image": "auto"}],
            "securityContext": {"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]},
        },
    }
    listening = [
        {"name": f"tls-{key}", "port": port, "targetPort": port, "appProtocol": "tls"}
        for key, port in ports.items()
    ]
    yield _object(
        "Deployment", name, namespace, spec={"template": pod, "selector": {"matchLabels": dict(labels)}}
    )
    yield _object(
        "Service",
        name,
        namespace,
        spec={"selector": dict(labels), "ports": listening, "clusterIP": "10.97.0.1"},
    )
    yield _object("ServiceAccount", service_account, namespace)
    if with_rights:
        rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]}
        yield _object("Role", "secrets", namespace, rules=[rule])
        yield _object(
            "RoleBinding",
            "secrets",
            namespace,
            roleRef={"kind": "Role", "name": "secrets"},
            subjects=[{"kind": "ServiceAccount", "name": service_account, "namespace": namespace}],
        )


def _limits(limits: config.Limits) -> dict[str, object]:
    agreed = {
        "maxConnections": limits.max_connections,
        "idleTimeout": limits.idle_timeout,
        "maxConnectionDuration": limits.max_connection_duration,
    }
    return {key: value for key, value in agreed.items() if value is not None}


def _around_consumer(
    stack: Stack, consumer: config.Consumer, references: Mapping[str, object]
) -> Iterator[Object]:
    gateway = consumer.egress_gateway
    if gateway.adopt:
        yield from _gateway(
            gateway.name, gateway.namespace, gateway.identity, gateway.selector, {"mesh": gateway.port}
        )
    if not gateway.guard_upstream_connections:
        yield _outside("Unguarded", namespace=gateway.namespace, name=gateway.name)
    for policy in consumer.sidecars:
        yield _outside(
            "SidecarLimits",
            namespace=policy.namespace,
            host=f"{gateway.name}.{gateway.namespace}.svc.{stack.cluster.domain}",
            limits=_limits(policy.limits),
        )
    trusted: dict[str, list[str]] = {}
    authorities: dict[str, str] = {}
    for provider in consumer.providers:
        authorities[provider.name] = provider.ca_certificate or f"CA of {provider.name}"
        secret = trusted.setdefault(provider.client_secret or consumer.client_secret, [])
        if provider.stack is not None and provider.ca_from_stack:
            authorities[provider.name] = str(_outputs(references, provider.stack)["caCertificate"])
        elif provider.ca_certificate is None:
            secret.append(authorities[provider.name])
        domain = provider.system_domain or _outputs(references, provider.stack or "")["systemDomain"]
        yield _outside("WildcardRecord", domain=domain)
    for name, certificates in trusted.items():
        yield _secret(name, gateway.namespace, "\n".join(certificates) or "another CA")
    for imported in consumer.imports:
        provider = next(p for p in consumer.providers if p.name == imported.provider)
        for endpoint in imported.endpoints:
            outputs = _outputs(references, provider.stack) if provider.stack is not None else None
            if outputs is None:
                host, port, name = str(endpoint.host), provider.public_port, str(provider.identity)
            else:
                public = outputs["services"][imported.service or imported.name]["endpoints"][endpoint.name]
                host, port, name = public["host"], public["port"], outputs["id"]
            yield _outside(
                "RemoteEndpoint",
                host=host,
                port=port,
                certificate=name,
                authority=authorities[imported.provider],
                idleSeconds=provider.load_balancer_idle_seconds,
                limits=_limits(endpoint.limits),
            )
            service = endpoint.service or f"svc-{imported.name}-{endpoint.name}"
            yield _outside(
                "Application",
                namespace=imported.namespace,
                serviceAccounts=list(imported.service_accounts),
                protocol="TCP",
                host=f"{service}.{imported.namespace}.svc.{stack.cluster.domain}",
                port=endpoint.port,
                sni=host,
                end=f"{host}:{port}",
            )


def _outputs(references: Mapping[str, object], stack: str) -> Any:
    return references[stack]


def _around_broker(stack: Stack, broker: config.Broker, references: Mapping[str, object]) -> Iterator[Object]:
    """The broker, and where its own calls go in the standalone scenario."""
    yield _outside("Broker", namespace=broker.namespace, name=broker.name)
    if stack.consumer is None or broker.role != "consumer" or broker.upstream.url is not None:
        return
    provider = next(p for p in stack.consumer.providers if p.name == broker.provider)
    authority = provider.ca_certificate or f"CA of {provider.name}"
    if provider.stack is None:
        host, port, name = (
            f"istio-broker.{provider.system_domain}",
            provider.public_port,
            str(provider.identity),
        )
    else:
        outputs = _outputs(references, provider.stack)
        host, port, name = outputs["controlPlane"]["host"], outputs["port"], outputs["id"]
        authority = str(outputs["caCertificate"]) if provider.ca_from_stack else authority
    yield _outside(
        "RemoteEndpoint",
        host=host,
        port=port,
        certificate=name,
        authority=authority,
        idleSeconds=provider.load_balancer_idle_seconds,
        limits={},
    )
    yield _outside(
        "Application",
        namespace=broker.namespace,
        serviceAccounts=[broker.name],
        protocol="TCP",
        host=f"svc-broker-upstream.{broker.namespace}.svc.{stack.cluster.domain}",
        port=broker.service_port,
        sni=host,
        end=f"{host}:{port}",
    )


def _around_provider(stack: Stack, provider: config.Provider) -> Iterator[Object]:
    gateway = provider.ingress_gateway
    if gateway.adopt:
        yield from _gateway(
            gateway.name, gateway.namespace, gateway.identity, gateway.selector, {"public": provider.port}
        )
    if not gateway.guard_upstream_connections:
        yield _outside("Unguarded", namespace=gateway.namespace, name=gateway.name)
    yield _secret(provider.server_secret, gateway.namespace, "CA of consumers")
    yield _outside("WildcardRecord", domain=provider.system_domain)
    yield _public_entry(provider)
    for export in provider.exports:
        for endpoint in export.endpoints:
            yield _outside(
                "RemoteConsumers",
                host=endpoint.host,
                port=provider.port,
                names=list(export.consumers),
                end=f"{endpoint.address}:{endpoint.port}",
                limits=_limits(endpoint.limits),
                oldestTls=provider.min_tls_version,
            )
    route, broker = provider.control_plane, stack.broker
    if route is not None:
        end = f"{route.address}:{route.port}"
        if route.address is None and broker is not None:
            end = f"{broker.name}.{broker.namespace}.svc.{stack.cluster.domain}:{broker.port}"
        yield _outside(
            "RemoteConsumers",
            host=route.host or f"istio-broker.{provider.system_domain}",
            port=provider.port,
            names=None if route.open_to_all else list(route.consumers),
            end=end,
            limits={},
            oldestTls=provider.min_tls_version,
        )


def _public_entry(provider: config.Provider) -> Object:
    """What was agreed about the load balancer and the record: who stands there, whom it admits, how the client's address
    is told, and who makes the record."""
    gateway, balancer, dns = provider.ingress_gateway, provider.load_balancer, provider.dns
    network = balancer.network if balancer is not None else None
    existing = balancer.existing if balancer is not None else None
    kind = (
        "service" if balancer is None else next(k for k in balancer.model_fields_set if getattr(balancer, k))
    )
    return _outside(
        "PublicEntry",
        balancer=kind,
        namespace=gateway.namespace,
        port=provider.port,
        adopted=gateway.adopt,
        networks=list(network.source_ranges) if network is not None else [],
        dualstack=network is not None and network.ip_address_type == "dualstack",
        tells=network.client_address if network is not None else None,
        theirs=existing.proxy_protocol if existing is not None else False,
        group=existing.target_group_arn if existing is not None else None,
        address=existing.address if existing is not None else None,
        domain=provider.system_domain,
        record=next(iter(dns.model_fields_set)) if dns is not None else None,
        source=dns.external_dns.source if dns is not None and dns.external_dns is not None else None,
    )


def _around_upstream(stack: Stack, upstream: config.Upstream) -> Iterator[Object]:
    tls = upstream.tls
    sni = tls.sni or upstream.address
    secure = upstream.protocol in {"HTTPS", "TLS"}
    if tls.credential_secret is not None:
        yield _secret(tls.credential_secret, upstream.namespace, "a private CA")
    if not upstream.guard_upstream_connections:
        yield _outside("Unguarded", namespace=upstream.namespace, name=f"upstream-{upstream.name}")
    authority = sni if ":" not in sni else f"[{sni}]"
    default = 443 if secure else 80
    yield _outside(
        "ExternalService",
        proxied=upstream.host,
        address=upstream.address,
        port=upstream.port,
        protocol=upstream.protocol,
        sni=sni if secure else None,
        names=(list(tls.subject_alt_names) or [sni]) if secure else [],
        presents=tls.client_certificate,
        private=tls.credential_secret,
        authority=authority if upstream.port == default else f"{authority}:{upstream.port}",
        limits=_limits(upstream.limits),
        networks=list(upstream.egress_cidrs),
        opa=upstream.opa is not None,
    )
    is_http = upstream.protocol in {"HTTP", "HTTPS"}
    local = f"svc-{upstream.name}.{upstream.namespace}.svc.{stack.cluster.domain}"
    reached: dict[str, object] = {
        "protocol": "HTTP" if is_http else "TCP",
        "host": upstream.host if is_http else local,
        "port": 80 if is_http else upstream.service_port,
        "sni": upstream.host,
        "end": f"{upstream.address}:{upstream.port}",
    }
    for client in upstream.clients:
        accounts = list(client.service_accounts)
        yield _outside("Application", namespace=client.namespace, serviceAccounts=accounts, **reached)
        if upstream.confine_clients:
            yield _outside("Confined", namespace=client.namespace, networks=list(upstream.confine_clients))
    if upstream.ingress is not None:
        entry = upstream.ingress
        yield _secret(entry.server_secret, entry.namespace, "none")
        yield _outside(
            "Application",
            **{**reached, "port": entry.https_port},
            namespace=entry.namespace,
            serviceAccounts=[entry.service_account],
            gateway=dict(entry.labels),
            certificate=entry.server_secret,
        )
