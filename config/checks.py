"""What must fit together in a stack: the rules that no single value shows.

Each check yields Findings and touches nothing. Sources: the invariants of Istio's routing across two clusters
(one SNI everywhere, unique server hosts, certificates by name) and Kubernetes' object names.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from config import broker_checks, edge_checks, names
from config.errors import HIDDEN, Finding, show
from config.types import MAX_LABEL, is_auto_allocated, is_below, is_ip, quantity, seconds
from config.upstream import OPA_API_PORT, OPA_HEALTH_PORT, SERVER_PORT

if TYPE_CHECKING:
    from config.broker import BrokerWorkload
    from config.certificate import Certificate
    from config.consumer import Consumer, Import, ImportedEndpoint
    from config.consumer import Provider as ImportedProvider
    from config.gateway import Gateway, Workload
    from config.provider import ConsumerBundle, Provider
    from config.stack import Stack
    from config.upstream import Upstream


T = TypeVar("T")


def findings_of(stack: Stack, data: Mapping[str, object]) -> list[Finding]:
    """Every finding of every check. `data` is what was given, before invalid parts were left out."""
    return [
        *_cluster(data),
        *_mesh_ca(stack),
        *_roles(data),
        *_gateways(stack),
        *edge_checks.findings(stack),
        *_namespaces(stack),
        *_formerly(stack),
        *_services(stack),
        *_virtual_ips(stack),
        *_clients(stack),
        *_imported_providers(stack),
        *_certificates(stack),
        *_imports(stack, data),
        *_exports(stack),
        *_upstreams(stack),
        *broker_checks.findings(stack, data),
        *(_memory("broker", stack.broker.workload) if stack.broker is not None else ()),
    ]


def _unique(items: Iterable[tuple[str, object]], what: str, remedy: str) -> Iterator[Finding]:
    """One finding for each (key, value) whose value stood before."""
    first: dict[object, str] = {}
    for key, value in items:
        if value in first:
            yield Finding(key, show(value), f"{what} {first[value]} already", remedy)
        first.setdefault(value, key)


def _first_of(items: Iterable[T], key: Callable[[T], object]) -> list[T]:
    """The items without those whose key stood before, which another finding is about."""
    first: dict[object, T] = {}
    for item in items:
        first.setdefault(key(item), item)
    return list(first.values())


def _object_name(key: str, name: str) -> Iterator[Finding]:
    if len(name) > MAX_LABEL:
        yield Finding(
            key,
            show(name),
            f"is an object name of {len(name)} characters, at most {MAX_LABEL} are allowed",
            f"shorten the names it is made of by {len(name) - MAX_LABEL}",
        )


def _cluster(data: Mapping[str, object]) -> Iterator[Finding]:
    raw = data.get("cluster")
    if not isinstance(raw, dict):
        return
    ways = [way for way in ("kubeconfig", "kubeconfigSecret", "context") if raw.get(way)]
    if raw.get("render") is True and ways:
        yield Finding(
            f"cluster.{ways[0]}",
            show(raw[ways[0]]),
            "contradicts `render: true`, which needs no cluster",
            "keep one",
        )
    if "kubeconfig" in ways and "kubeconfigSecret" in ways:
        yield Finding(
            "cluster.kubeconfig", show(raw["kubeconfig"]), "contradicts `kubeconfigSecret: true`", "keep one"
        )
    given = raw.get("kubeconfig")
    if isinstance(given, str) and any(mark in given for mark in ("\n", "{", "://")):
        yield Finding(
            "cluster.kubeconfig",
            HIDDEN,
            "is no path of a file: it holds the contents of a kubeconfig, or an address",
            "write the file's path, or `kubeconfigSecret: true` and store the contents with `pulumi config set --secret "
            "kubeconfig`; if a token stood here, replace it",
        )
    if not ways and not raw.get("render"):
        yield Finding(
            "cluster",
            show(raw),
            "names no cluster; the stack never falls back to whatever kubeconfig happens to be current",
            "add `context`, `kubeconfig`, `kubeconfigSecret: true` or `render: true`",
        )


def _mesh_ca(stack: Stack) -> Iterator[Finding]:
    authority = stack.cluster.mesh_ca
    if authority is None:
        return
    chosen = {"stackSecret": authority.stack_secret, "directory": authority.directory}
    ways = [way for way, value in chosen.items() if value is not None]
    if not ways:
        yield Finding(
            "cluster.meshCa",
            "{}",
            "says nowhere where the authority is",
            "add `stackSecret` or `directory`, or remove it",
        )
    for way in ways[1:]:
        yield Finding(f"cluster.meshCa.{way}", "set", f"contradicts `{ways[0]}`", "keep one")
    for way in ways if stack.cluster.render else ():
        yield Finding(
            f"cluster.meshCa.{way}",
            show(chosen[way]),
            "would write the private key into the rendered files (`cluster.render: true`)",
            "remove it and make the Secret `cacerts` in the cluster",
        )
    if stack.cluster.istio_csr is not None:
        yield Finding(
            "cluster.meshCa",
            "set",
            "contradicts `istioCsr`, which signs in istiod's place, so that istiod would never use it",
            "keep one",
        )


def _roles(data: Mapping[str, object]) -> Iterator[Finding]:
    cluster = data.get("cluster")
    if isinstance(cluster, dict) and cluster.get("meshCa") is not None:
        return
    if all(data.get(role) in (None, []) for role in ("consumer", "provider", "upstreams")):
        yield Finding(
            "consumer, provider, upstreams",
            "null",
            "are all missing or empty, so the stack has no role",
            "add at least one",
        )


def _memory(key: str, workload: Workload | BrokerWorkload) -> Iterator[Finding]:
    if quantity(workload.memory_limit) < quantity(workload.memory_request):
        yield Finding(
            f"{key}.workload.memoryLimit",
            show(workload.memory_limit),
            f"is below memoryRequest ({workload.memory_request}), and the API server refuses such Pods",
            "raise it or lower memoryRequest",
        )


def _workload(key: str, workload: Workload) -> Iterator[Finding]:
    yield from _memory(key, workload)
    if workload.max_replicas < workload.min_replicas:
        yield Finding(
            f"{key}.workload.maxReplicas",
            show(workload.max_replicas),
            f"is below minReplicas ({workload.min_replicas})",
            "raise it or lower minReplicas",
        )
    said = workload.pod_annotations.get(edge_checks.PROXY_CONFIG)
    if said is not None and "terminationDrainDuration" not in said:
        yield Finding(
            f"{key}.workload.podAnnotations[{edge_checks.PROXY_CONFIG}]",
            show(said),
            "takes the place of the stack's own, by which open connections may drain, and says nothing of that: they would be "
            "cut 5 s after a replica is told to stop",
            f"add `terminationDrainDuration: {workload.drain_seconds}s` to it, or move the settings to "
            "meshConfig.defaultConfig",
        )


def _gateways(stack: Stack) -> Iterator[Finding]:
    gateways: list[tuple[str, Gateway]] = []
    if stack.consumer:
        gateways.append(("consumer.egressGateway", stack.consumer.egress_gateway))
    if stack.provider:
        gateways.append(("provider.ingressGateway", stack.provider.ingress_gateway))
    for key, gateway in gateways:
        yield from _workload(key, gateway.workload)
        given = gateway.model_dump(mode="json", by_alias=True, exclude_unset=True)
        for field in ("workload", "service", "egressCidrs"):
            if gateway.adopt and field in given:
                yield Finding(
                    f"{key}.{field}",
                    show(given[field]),
                    "describes a gateway that the stack creates, but `adopt: true` uses one that exists",
                    "remove it, or set `adopt: false`",
                )
    accounts = [
        (f"{key}.serviceAccount", f"{gateway.namespace}/{gateway.identity}")
        for key, gateway in _first_of(gateways, lambda pair: pair[1].name)
        if not gateway.adopt
    ]
    yield from _unique(
        accounts, "is the identity of the gateway of", "give each gateway a service account of its own"
    )
    for (other_key, other), (key, gateway) in itertools.permutations(gateways, 2):
        if gateway.selector.items() <= other.selector.items():
            yield Finding(
                f"{key}.labels",
                show(gateway.selector),
                f"selects the Pods of {other_key} too: Istio looks for a gateway's Pods in all namespaces",
                "give each gateway labels of its own",
            )
            return


def _provider_key(provider: ImportedProvider) -> str:
    return f"consumer.providers[{provider.name}]"


def _import_key(imported: Import, endpoint: ImportedEndpoint | None = None) -> str:
    key = f"consumer.imports[{imported.name}]"
    return f"{key}.endpoints[{endpoint.name}]" if endpoint else key


def _imported_providers(stack: Stack) -> Iterator[Finding]:
    consumer = stack.consumer
    if consumer is None:
        return
    yield from _unique(
        ((f"{_provider_key(p)}.name", p.name) for p in consumer.providers), "is the name of", "rename one"
    )
    for provider in consumer.providers:
        key = _provider_key(provider)
        if provider.source is None and provider.system_domain is None:
            yield Finding(
                f"{key}.systemDomain",
                "null",
                "is missing: a provider is spelled out, or named by `stack` or `bundle`",
                "add `systemDomain`, `stack` or `bundle`",
            )
        parts = provider.stack.split("/") if provider.stack is not None else []
        if provider.stack is not None and (len(parts) != 3 or not all(parts)):
            yield Finding(
                f"{key}.stack",
                show(provider.stack),
                "is no fully qualified stack name",
                "write `organization/project/stack`",
            )
        for field in _supplied(provider):
            if field in provider.model_fields_set:
                alias = type(provider).model_fields[field].alias
                yield Finding(
                    f"{key}.{alias}",
                    show(getattr(provider, field)),
                    f"is supplied by the {provider.source}; said twice, the two could differ",
                    f"remove `{alias}` or the other",
                )
        yield from _bundle(key, provider)
        if provider.source is None and "ca_from_stack" in provider.model_fields_set:
            yield Finding(
                f"{key}.caFromStack",
                show(provider.ca_from_stack),
                "says what to take from a stack or bundle, but the provider is not one",
                "remove it, or add `stack` or `bundle`",
            )
        if provider.keepalive.time_seconds >= provider.load_balancer_idle_seconds:
            yield Finding(
                f"{key}.keepalive.timeSeconds",
                show(provider.keepalive.time_seconds),
                f"is not below loadBalancerIdleSeconds ({provider.load_balancer_idle_seconds}), so the load balancer "
                "drops idle connections first",
                "lower it",
            )
    yield from _shared_secrets(consumer)
    yield from _unique(
        ((f"consumer.sidecars[{s.namespace}]", s.namespace) for s in consumer.sidecars),
        "is the namespace of",
        "name each namespace once",
    )
    for policy in consumer.sidecars:
        yield from _object_name(
            f"consumer.sidecars[{policy.namespace}]", names.sidecars(consumer.egress_gateway.name)
        )


def _supplied(provider: ImportedProvider) -> tuple[str, ...]:
    """The fields that the provider's stack or bundle supplies. What a bundle says of itself may be expected besides."""
    if provider.stack is not None:
        return ("system_domain", "id", "port", "ca_certificate")
    return ("port", "ca_certificate") if provider.bundle is not None else ()


def _bundle(key: str, provider: ImportedProvider) -> Iterator[Finding]:
    if provider.bundle is not None and provider.stack is not None:
        yield Finding(
            f"{key}.bundle", show(provider.bundle), "contradicts `stack`, which supplies the same", "keep one"
        )
    yield from _unpinned(key, provider)
    pins = {"caFingerprint": provider.ca_fingerprint, "bundleDigest": provider.bundle_digest}
    for pin, value in pins.items():
        if provider.bundle is None and value is not None:
            yield Finding(
                f"{key}.{pin}", show(value), "pins a bundle, but there is none", "remove it, or add `bundle`"
            )


def _unpinned(key: str, party: ImportedProvider | ConsumerBundle) -> Iterator[Finding]:
    if party.bundle is not None and party.ca_fingerprint is None and party.bundle_digest is None:
        yield Finding(
            f"{key}.bundle",
            show(party.bundle),
            "is not pinned, so whoever can put a file there could pass for its maker",
            "add `caFingerprint` or `bundleDigest`, learned from its maker by another way than the bundle",
        )


def _shared_secrets(consumer: Consumer) -> Iterator[Finding]:
    users: dict[str, list[ImportedProvider]] = defaultdict(list)
    for provider in consumer.providers:
        users[provider.client_secret or consumer.client_secret].append(provider)
    for secret, providers in users.items():
        for provider in providers:
            if len(providers) > 1 and provider.brings_ca:
                others = ", ".join(p.name for p in providers if p is not provider)
                yield Finding(
                    f"{_provider_key(provider)}.clientSecret",
                    show(secret),
                    f"is shared with {others}: the CA of one provider would then vouch for the others",
                    "give each provider that brings a CA certificate a client Secret of its own (the same certificate "
                    "may be in both)",
                )


SHORTEST_CERTIFICATE, LATEST_RENEWAL = 3600, 300
"""Seconds; cert-manager refuses to issue for less, and to renew later before the end."""


def _certificates(stack: Stack) -> Iterator[Finding]:
    """Where certificates come from; and that no Secret is made twice, with different contents."""
    made: dict[tuple[str, tuple[str, str]], Certificate] = {}
    if stack.provider is not None:
        secret = (stack.provider.ingress_gateway.namespace, stack.provider.server_secret)
        made["provider.certificate", secret] = stack.provider.certificate
    if stack.consumer is not None:
        namespace = stack.consumer.egress_gateway.namespace
        made["consumer.certificate", (namespace, stack.consumer.client_secret)] = stack.consumer.certificate
        for imported in stack.consumer.providers:
            secret = (namespace, imported.client_secret or stack.consumer.client_secret)
            key = f"{_provider_key(imported)}.certificate" if imported.certificate else "consumer.certificate"
            made[key, secret] = imported.certificate or stack.consumer.certificate
    for number, bundle in enumerate(stack.provider.consumer_bundles if stack.provider is not None else ()):
        yield from _unpinned(f"provider.consumerBundles[{number}]", bundle)
    if stack.provider is not None and stack.provider.consumers_crl and not stack.provider.brings_ca:
        yield Finding(
            "provider.consumersCrl",
            show(stack.provider.consumers_crl),
            "says whom to refuse of CAs that are not given here",
            "add `consumersCaCertificate` or `consumerBundles`, or put the lists under `ca.crl` into the server Secret",
        )
    yield from _one_secret_for_both(stack)
    yield from _claimed_twice(stack)
    for key, certificate in {key: certificate for (key, _), certificate in made.items()}.items():
        yield from _certificate(key, certificate, rendered=stack.cluster.render)
        if certificate.cert_manager is not None and not certificate.cert_manager.trust_issuer:
            yield from _untrusting(key, stack)
    first: dict[tuple[str, str], tuple[str, Certificate]] = {}
    for (key, secret), certificate in made.items():
        other_key, other = first.setdefault(secret, (key, certificate))
        both_roles = "provider.certificate" in (key, other_key)
        if other_key != key and not both_roles and (certificate.made or other.made) and certificate != other:
            yield Finding(
                key,
                show(certificate.model_dump(by_alias=True, exclude_unset=True)),
                f"and {other_key} would both decide what is in the Secret {'/'.join(secret)}",
                "give one of them a Secret of its own (`clientSecret`, `serverSecret`)",
            )


def _untrusting(key: str, stack: Stack) -> Iterator[Finding]:
    """A gateway whose Secret cert-manager makes, and that would know no authority of its peers."""
    provider, consumer = stack.provider, stack.consumer
    remedy = "or set `trustIssuer: true` if the issuer puts its own CA into `ca.crt` and that signs the other side too"
    if key == "provider.certificate":
        if provider is not None and not provider.brings_ca:
            yield Finding(
                f"{key}.certManager",
                "{…}",
                "says nothing of the consumers' CA; with an issuer that fills in no `ca.crt` everyone would be refused",
                f"add `provider.consumersCaCertificate` or `consumerBundles`, {remedy}",
            )
        return
    unknown = [
        imported.name
        for imported in (consumer.providers if consumer is not None else ())
        if not imported.brings_ca
        and key
        == (f"{_provider_key(imported)}.certificate" if imported.certificate else "consumer.certificate")
    ]
    if unknown:
        yield Finding(
            f"{key}.certManager",
            "{…}",
            f"says nothing of the CA of {', '.join(unknown)}; with an issuer that fills in no `ca.crt` no connection "
            "there would be made",
            f"add `caCertificate` to that provider, {remedy}",
        )


def _one_secret_for_both(stack: Stack) -> Iterator[Finding]:
    """A Secret that the stack makes serves one gateway: for the other it would hold the wrong names, or the wrong CA."""
    provider, consumer = stack.provider, stack.consumer
    if provider is None or consumer is None:
        return
    namespace = consumer.egress_gateway.namespace
    secrets = {
        consumer.client_secret,
        *(p.client_secret or consumer.client_secret for p in consumer.providers),
    }
    certificates = [provider.certificate, consumer.certificate, *(p.certificate for p in consumer.providers)]
    makes = provider.brings_ca or any(p.brings_ca for p in consumer.providers)
    makes = makes or any(certificate is not None and certificate.made for certificate in certificates)
    if makes and namespace == provider.ingress_gateway.namespace and provider.server_secret in secrets:
        yield Finding(
            "provider.serverSecret",
            show(provider.server_secret),
            f"is a client Secret too, of the egress gateway in the same namespace {namespace!r}",
            "give the ingress gateway a Secret of its own",
        )


def _claimed_twice(stack: Stack) -> Iterator[Finding]:
    """A Secret that the stack makes, or for which it says whom to trust, of the name of its gateway: the claims of the two would
    be one object, which goes with the first of them."""
    provider, consumer = stack.provider, stack.consumer
    secrets: dict[str, tuple[Gateway, str]] = {}
    if provider is not None and (provider.certificate.made or provider.brings_ca):
        secrets["provider.serverSecret"] = (provider.ingress_gateway, provider.server_secret)
    if consumer is not None:
        for imported in consumer.providers:
            if (imported.certificate or consumer.certificate).made or imported.brings_ca:
                owner = _provider_key(imported) if imported.client_secret else "consumer"
                secret = imported.client_secret or consumer.client_secret
                secrets[f"{owner}.clientSecret"] = (consumer.egress_gateway, secret)
    for key, (gateway, secret) in secrets.items():
        if secret == gateway.name and not gateway.adopt:
            yield Finding(
                key,
                show(secret),
                f"is the name of its gateway too, and both would be claimed by one ConfigMap, `{secret}-owner`",
                "choose another name for the Secret",
            )


def _certificate(key: str, certificate: Certificate, *, rendered: bool) -> Iterator[Finding]:
    chosen = {
        "stackSecret": certificate.stack_secret,
        "directory": certificate.directory,
        "certManager": certificate.cert_manager,
    }
    ways = [way for way, value in chosen.items() if value is not None]
    for way in ways[1:]:
        yield Finding(f"{key}.{way}", "set", f"contradicts `{ways[0]}`", "keep one")
    for way in ways if rendered else ():
        if way != "certManager":
            yield Finding(
                f"{key}.{way}",
                show(chosen[way]),
                "would write the private key into the rendered files (`cluster.render: true`)",
                "remove it and make the Secret in the cluster, or use `certManager`",
            )
    if certificate.cert_manager is not None:
        duration, before = certificate.cert_manager.duration, certificate.cert_manager.renew_before
        if seconds(duration) < SHORTEST_CERTIFICATE:
            yield Finding(
                f"{key}.certManager.duration",
                show(duration),
                "is shorter than cert-manager allows (1h)",
                "raise it",
            )
        elif seconds(before) >= seconds(duration):
            yield Finding(
                f"{key}.certManager.renewBefore",
                show(before),
                f"is not below the duration ({duration}), so certificates would be renewed without end",
                "lower it",
            )
        if seconds(before) < LATEST_RENEWAL:
            yield Finding(
                f"{key}.certManager.renewBefore",
                show(before),
                "is shorter than cert-manager allows (5m)",
                "raise it",
            )


def _imports(stack: Stack, data: Mapping[str, object]) -> Iterator[Finding]:
    consumer = stack.consumer
    if consumer is None:
        return
    providers = {provider.name: provider for provider in consumer.providers}
    declared = _names_in(data, "consumer", "providers")
    endpoints = _endpoints(consumer.imports)
    for imported in consumer.imports:
        if imported.provider not in declared:
            yield Finding(
                f"{_import_key(imported)}.provider",
                show(imported.provider),
                f"is no provider of this stack (declared: {', '.join(sorted(declared)) or 'none'})",
                "add it to `consumer.providers` or correct the name",
            )
    for imported, endpoint in endpoints:
        provider = providers.get(imported.provider)
        key = _import_key(imported, endpoint)
        if provider is not None:
            yield from _imported_host(key, endpoint.host, provider)
        yield from _object_name(key, names.imported(names.slug(imported.name, endpoint.name)))
    yield from _unique(
        ((f"{_import_key(i)}.name", i.name) for i in consumer.imports), "is the name of", "rename one import"
    )
    yield from _unique(
        (
            *((_import_key(i, e), names.slug(i.name, e.name)) for i, e in _distinct(consumer.imports)),
            *([("broker.upstream", names.BROKER_UPSTREAM)] if broker_checks.upstream_provider(stack) else []),
        ),
        "is also the slug of",
        "rename one of them: slugs name the objects",
    )
    yield from _unique(
        (
            *((f"{_import_key(i, e)}.host", e.host) for i, e in endpoints if e.host is not None),
            *([("broker.upstream.host", host)] if (host := broker_checks.upstream_host(stack)) else []),
        ),
        "is imported by",
        "import it once, or ask the provider for a second public host: the SNI chooses the route",
    )
    yield from _unique(
        (
            (_import_key(i, e), f"{provider.source}: {i.service or i.name}/{e.name}")
            for i, e in _distinct(consumer.imports)
            if (provider := providers.get(i.provider)) is not None and provider.source is not None
        ),
        "is imported by",
        "import it once, or let the provider export it under a second public host: the SNI chooses the route",
    )


def _virtual_ips(stack: Stack) -> Iterator[Finding]:
    """The fixed virtual IPs of imports and upstreams, which the cluster must be able to give to a Service."""
    imports = stack.consumer.imports if stack.consumer is not None else ()
    fixed = [
        *((f"{_import_key(i, e)}.clusterIp", e.cluster_ip) for i, e in _endpoints(imports)),
        *((f"upstreams[{u.name}].clusterIp", u.cluster_ip) for u in stack.upstreams),
    ]
    given = [(key, address) for key, address in fixed if address is not None]
    for key, address in given:
        if is_auto_allocated(address):
            yield Finding(
                key,
                show(address),
                "lies in 240.240.0.0/16, which Istio allocates from and only captured Pods resolve",
                "choose an address of the cluster's Service range",
            )
        if (":" in address) != (stack.cluster.ip_family == "IPv6"):
            yield Finding(
                key,
                show(address),
                f"is not of the cluster's family {stack.cluster.ip_family}",
                "write an address of that family or change `cluster.ipFamily`",
            )
    yield from _unique(
        ((key, ipaddress.ip_address(address)) for key, address in given),
        "is the virtual IP of",
        "choose another address",
    )


def _namespaces(stack: Stack) -> Iterator[Finding]:
    """The namespaces that the stack is to make, and would delete with all that is in them."""
    shared: list[tuple[str, Gateway]] = []
    if stack.consumer is not None:
        shared.append(("consumer.egressGateway", stack.consumer.egress_gateway))
    if stack.provider is not None:
        shared.append(("provider.ingressGateway", stack.provider.ingress_gateway))
    for key, gateway in shared:
        if gateway.adopt and gateway.create_namespace:
            yield Finding(
                f"{key}.createNamespace",
                "true",
                "has no effect: a gateway that is adopted has its namespace already, with another owner",
                "remove it, or set `adopt: false`",
            )
    created = [(key, g.namespace) for key, g in shared if g.create_namespace and not g.adopt]
    created += [(f"upstreams[{u.name}]", u.namespace) for u in stack.upstreams if u.create_namespace]
    if stack.broker is not None and stack.broker.create_namespace:
        created.append(("broker", stack.broker.namespace))
    for key, namespace in created:
        if namespace in {stack.cluster.mesh_namespace, "default"} or namespace.startswith("kube-"):
            yield Finding(
                f"{key}.createNamespace",
                show(namespace),
                "is a namespace of the cluster or of the mesh itself, which `down` would delete with all that is in it",
                "choose a namespace of its own",
            )


def _formerly(stack: Stack) -> Iterator[Finding]:
    """Former names: of two resources that say they were one, the engine would refuse the second in mid-update."""
    if stack.consumer is not None:
        imports = stack.consumer.imports
        yield from _renamed("consumer.egressGateway", [stack.consumer.egress_gateway])
        yield from _renamed("consumer.imports[{}]", imports)
        for imported in imports:
            yield from _renamed(_import_key(imported) + ".endpoints[{}]", imported.endpoints)
        yield from _moved(
            [(_import_key(i, e), i, e) for i, e in _distinct(imports)],
        )
    if stack.provider is not None:
        exports = stack.provider.exports
        yield from _renamed("provider.ingressGateway", [stack.provider.ingress_gateway])
        yield from _renamed("provider.exports[{}]", exports)
        for export in exports:
            yield from _renamed(f"provider.exports[{export.name}].endpoints[{{}}]", export.endpoints)
        yield from _moved(
            [
                (f"provider.exports[{x.name}].endpoints[{e.name}]", x, e)
                for x in _first_of(exports, lambda export: export.name)
                for e in x.endpoints
            ]
        )
    yield from _renamed("upstreams[{}]", stack.upstreams)


def _renamed(where: str, items: Sequence[names.Named]) -> Iterator[Finding]:
    """Former names among the names of one list. where: the key of an item, with {} for its name."""
    now = {item.name for item in items}
    before = [(f"{where.format(item.name)}.formerly", item) for item in items if item.formerly is not None]
    for key, item in before:
        if item.formerly in now:
            own = item.formerly == item.name
            rule = "is the name that it has now" if own else f"is the name of {where.format(item.formerly)}"
            yield Finding(key, show(item.formerly), rule, "remove it: it is the name from before a rename")
    yield from _unique(
        ((key, item.formerly) for key, item in before if item.formerly not in now),
        "is the former name of",
        "keep it where the objects are to go",
    )


def _moved(endpoints: Sequence[tuple[str, names.Named, names.Named]]) -> Iterator[Finding]:
    """Former slugs that are slugs of others, though the names that they are made of differ."""
    now = {names.slug(service.name, endpoint.name): key for key, service, endpoint in endpoints}
    services = {service.name for _, service, _ in endpoints}
    for key, service, endpoint in endpoints:
        siblings = {e.name for _, s, e in endpoints if s is service}
        if service.formerly in services or endpoint.formerly in siblings:
            continue
        for slug in names.former_slugs(service, endpoint):
            if slug in now:
                rule = f"had the slug that {now[slug]} has now, so that both would be the same objects"
                yield Finding(f"{key}.formerly", show(slug), rule, "rename one of them")


def _endpoints(imports: Iterable[Import]) -> list[tuple[Import, ImportedEndpoint]]:
    return [(imported, endpoint) for imported in imports for endpoint in imported.endpoints]


def _distinct(imports: Iterable[Import]) -> list[tuple[Import, ImportedEndpoint]]:
    """The endpoints of all imports, but for those of a second import of the same name."""
    return _endpoints(_first_of(imports, lambda imported: imported.name))


def _services(stack: Stack) -> Iterator[Finding]:
    """A Service's name is also that of its gateway's other objects."""
    services: list[tuple[str, str, str]] = []
    if stack.consumer:
        gateway: Gateway = stack.consumer.egress_gateway
        services.append(("consumer.egressGateway.name", gateway.name, gateway.namespace))
    if stack.provider:
        gateway = stack.provider.ingress_gateway
        for name in dict.fromkeys([gateway.name, stack.provider.service_name]):
            services.append(("provider.ingressGateway.name", name, gateway.namespace))
    for upstream in _first_of(stack.upstreams, lambda u: u.name):
        key = f"upstreams[{upstream.name}]"
        services.append((key, names.upstream(upstream.name), upstream.namespace))
        if not upstream.is_http:
            services.append((key, names.virtual_ip_service(upstream.name), upstream.namespace))
    imported = _distinct(stack.consumer.imports) if stack.consumer else []
    for i, e in _first_of(imported, lambda pair: names.slug(pair[0].name, pair[1].name)):
        name = e.service or names.virtual_ip_service(names.slug(i.name, e.name))
        services.append((f"{_import_key(i, e)}.service", name, i.namespace))
    if stack.broker:
        services.append(("broker.name", stack.broker.name, stack.broker.namespace))
        if stack.broker.standalone:
            services.append(("broker.upstream", stack.broker.upstream_service, stack.broker.namespace))
    yield from _unique(
        ((key, f"{name}.{namespace}") for key, name, namespace in services),
        "is the Service of",
        "choose another name or namespace",
    )


def _clients(stack: Stack) -> Iterator[Finding]:
    """Applications stay out of the gateways' namespaces, where services outside the mesh are visible."""
    gateways = {upstream.namespace: f"upstreams[{upstream.name}]" for upstream in stack.upstreams}
    clients = [
        (f"upstreams[{upstream.name}].clients[{client.namespace}]", client.namespace)
        for upstream in stack.upstreams
        for client in upstream.clients
    ]
    if stack.provider:
        gateways[stack.provider.ingress_gateway.namespace] = "provider.ingressGateway"
    if stack.consumer:
        gateways[stack.consumer.egress_gateway.namespace] = "consumer.egressGateway"
        clients += [(f"{_import_key(i)}.namespace", i.namespace) for i in stack.consumer.imports]
    if stack.broker:
        clients.append(("broker.namespace", stack.broker.namespace))
        clients += [("broker.namespaces", namespace) for namespace in stack.broker.namespaces]
    for key, namespace in clients:
        if namespace in gateways:
            yield Finding(
                key,
                show(namespace),
                f"is the namespace of the gateway of {gateways[namespace]}, where services outside the mesh are "
                "visible, so workloads could go past the gateway",
                "give the gateway a namespace of its own",
            )


def _imported_host(key: str, host: str | None, provider: ImportedProvider) -> Iterator[Finding]:
    if provider.source is not None and host is not None:
        yield Finding(
            f"{key}.host",
            show(host),
            f"is supplied by the {provider.source}; said twice, the two could differ",
            "remove it",
        )
    if provider.source is None and host is None:
        yield Finding(f"{key}.host", "null", "is missing", "add the endpoint's public host")
    if host is not None and provider.system_domain is not None and not is_below(host, provider.system_domain):
        yield Finding(
            f"{key}.host",
            show(host),
            f"is not below the provider's system domain {provider.system_domain!r}, so its wildcard record does not "
            "resolve it",
            f"write a host that ends with '.{provider.system_domain}' or correct the provider",
        )


def _exports(stack: Stack) -> Iterator[Finding]:
    provider = stack.provider
    if provider is None:
        return
    endpoints = [
        (f"provider.exports[{x.name}].endpoints[{e.name}]", x, e)
        for x in provider.exports
        for e in x.endpoints
    ]
    yield from _unique(
        ((f"provider.exports[{x.name}].name", x.name) for x in provider.exports),
        "is the name of",
        "rename one export",
    )
    distinct = {x.name: x for x in reversed(provider.exports)}
    for key, export, endpoint in endpoints:
        yield from _object_name(key, names.exported(names.slug(export.name, endpoint.name)))
        yield from _public_host(f"{key}.host", endpoint.host, provider)
    yield from _unique(
        (
            *([("provider.controlPlane", names.CONTROL_PLANE)] if provider.control_plane else []),
            *((key, names.slug(x.name, e.name)) for key, x, e in endpoints if distinct[x.name] is x),
        ),
        "is also the slug of",
        "rename one of them: slugs name the objects",
    )
    hosts = [(f"{key}.host", f"{e.host}:{provider.port}") for key, _, e in endpoints]
    if provider.control_plane is not None:
        hosts.append(("provider.controlPlane.host", f"{provider.control_plane_host}:{provider.port}"))
        yield from _control_plane(provider)
    yield from _unique(
        hosts,
        "is the public host and port of",
        "give every endpoint a host of its own: of two servers with one host, Istio silently drops the later",
    )


def _public_host(key: str, host: str, provider: Provider) -> Iterator[Finding]:
    if not is_below(host, provider.system_domain):
        yield Finding(
            key,
            show(host),
            f"is not below the system domain {provider.system_domain!r}, so its wildcard record does not resolve it",
            f"write a host that ends with '.{provider.system_domain}'",
        )


def _control_plane(provider: Provider) -> Iterator[Finding]:
    route = provider.control_plane
    if route is None:
        return
    yield from _public_host("provider.controlPlane.host", provider.control_plane_host, provider)
    if not route.consumers and not route.open_to_all:
        yield Finding(
            "provider.controlPlane.consumers",
            "[]",
            "is empty, which would admit every client that the CA knows",
            "list the consumer ids, or set `openToAll: true` if that is meant",
        )
    if route.consumers and route.open_to_all:
        yield Finding(
            "provider.controlPlane.openToAll",
            "true",
            "contradicts the list in `consumers`",
            "keep one of the two",
        )


def _upstreams(stack: Stack) -> Iterator[Finding]:
    keyed = [(f"upstreams[{u.name}]", u) for u in stack.upstreams]
    for key, upstream in keyed:
        yield from _workload(key, upstream.workload)
        yield from _object_name(key, names.upstream(upstream.name))
        yield from _upstream(key, upstream)
    yield from _unique(((f"{k}.name", u.name) for k, u in keyed), "is the name of", "rename one upstream")
    yield from _unique(
        (
            (key, f"{upstream.namespace}/{name(upstream.name)}")
            for key, upstream in _first_of(keyed, lambda pair: pair[1].name)
            for name in (names.upstream, names.upstream_mesh, names.upstream_opa)
        ),
        "is an object of",
        "rename one upstream",
    )
    distinct = _first_of(stack.upstreams, lambda u: u.name)
    yield from _unique(
        (
            (f"upstreams[{u.name}].address", f"{u.address} in {u.namespace}")
            for u in distinct
            if not is_ip(u.address)
        ),
        "is the address of",
        "give each gateway a namespace of its own: of two entries of one host there, Istio ignores the later",
    )
    yield from _opa(distinct)
    yield from _ingress_ports(distinct)
    hosts = [(f"{k}.host", u.host) for k, u in keyed]
    imported = [
        (f"{_import_key(i, e)}.host", e.host)
        for i in (stack.consumer.imports if stack.consumer else ())
        for e in i.endpoints
        if e.host in {u.host for u in stack.upstreams}
    ]
    yield from _unique(
        hosts + imported, "is the host of", "give each its own host: the SNI chooses the route"
    )


def _opa(upstreams: Iterable[Upstream]) -> Iterator[Finding]:
    ports: dict[str, int] = {}
    namespaces: dict[str, str] = {}
    for upstream in upstreams:
        opa = upstream.opa
        if opa is None:
            continue
        if namespaces.setdefault(opa.extension_provider, upstream.namespace) != upstream.namespace:
            yield Finding(
                f"upstreams[{upstream.name}].opa.extensionProvider",
                show(opa.extension_provider),
                f"is the provider of the OPA in namespace {namespaces[opa.extension_provider]!r}, and its service can "
                "lie in one namespace only",
                "declare a provider for each namespace in meshConfig.extensionProviders",
            )
        if opa.port in (SERVER_PORT, OPA_API_PORT, OPA_HEALTH_PORT):
            yield Finding(
                f"upstreams[{upstream.name}].opa.port",
                show(opa.port),
                "is taken in the gateway's Pods, by its server or by what else OPA listens on",
                "choose another port, here and in meshConfig.extensionProviders",
            )
        if ports.setdefault(upstream.namespace, opa.port) != opa.port:
            yield Finding(
                f"upstreams[{upstream.name}].opa.port",
                show(opa.port),
                f"differs from the port {ports[upstream.namespace]} of another OPA in the namespace, of which Istio "
                "knows one",
                "choose the same port or another namespace",
            )


def _ingress_ports(upstreams: Iterable[Upstream]) -> Iterator[Finding]:
    """One port of an ingress gateway speaks one protocol; of the other's servers Envoy would accept none."""
    taken: dict[tuple[str, tuple[tuple[str, str], ...], int], tuple[str, str]] = {}
    for upstream in upstreams:
        entry = upstream.ingress
        if entry is None:
            continue
        for field, port, protocol in (
            ("httpPort", entry.http_port, "HTTP"),
            ("httpsPort", entry.https_port, "HTTPS"),
        ):
            server = (entry.namespace, tuple(sorted(entry.labels.items())), port)
            other, spoken = taken.setdefault(server, (upstream.name, protocol))
            if spoken != protocol and other != upstream.name:
                yield Finding(
                    f"upstreams[{upstream.name}].ingress.{field}",
                    show(port),
                    f"is the {spoken} port of upstreams[{other}] on the same ingress gateway",
                    "use one port for HTTP and another for HTTPS in all upstreams of one ingress gateway",
                )


def _upstream(key: str, upstream: Upstream) -> Iterator[Finding]:
    if upstream.host == upstream.address:
        yield Finding(
            f"{key}.host",
            show(upstream.host),
            "is the upstream's own name; the gateway itself could then not tell its route from the upstream",
            "choose a host of the mesh, for example `<name>.upstream.internal`",
        )
    if not upstream.originates_tls and "tls" in upstream.model_fields_set:
        yield Finding(
            f"{key}.tls",
            show(upstream.tls.model_dump(mode="json", by_alias=True, exclude_unset=True)),
            f"has no effect: the gateway originates no TLS for protocol {upstream.protocol}",
            "remove it, or choose HTTPS or TLS",
        )
    if upstream.originates_tls and is_ip(upstream.address) and upstream.tls.sni is None:
        yield Finding(
            f"{key}.tls.sni",
            "null",
            f"is missing: the address {upstream.address} is no name that a certificate could be checked against",
            "add the name in the upstream's certificate",
        )
    if is_ip(upstream.address) and not _contains(upstream.egress_cidrs, upstream.address):
        yield Finding(
            f"{key}.egressCidrs",
            show(upstream.egress_cidrs),
            f"do not contain the address {upstream.address}, so the gateway could not reach the upstream",
            "add a network that does",
        )
    if upstream.tls.client_certificate and upstream.tls.credential_secret is None:
        yield Finding(
            f"{key}.tls.clientCertificate",
            "true",
            "needs a Secret that holds the certificate",
            "add `credentialSecret`",
        )
    for field in ("ingress", "opa"):
        if not upstream.is_http and getattr(upstream, field) is not None:
            yield Finding(
                f"{key}.{field}",
                show(upstream.protocol),
                "is a protocol of connections, and this works on requests",
                f"remove `{field}`, or choose HTTP or HTTPS",
            )
    for field in ("service_port", "cluster_ip"):
        if upstream.is_http and field in upstream.model_fields_set:
            yield Finding(
                f"{key}.{type(upstream).model_fields[field].alias}",
                show(getattr(upstream, field)),
                "belongs to the virtual IP of a TCP or TLS upstream; an HTTP upstream is addressed by its host",
                "remove it, or choose TCP or TLS",
            )
    entry = upstream.ingress
    if entry is not None and entry.namespace == upstream.namespace:
        yield Finding(
            f"{key}.ingress.namespace",
            show(entry.namespace),
            "is the namespace of the upstream's own gateway, whose objects have the names of the ingress gateway's",
            "give the upstream a namespace of its own",
        )
    if entry is not None and entry.http_port == entry.https_port:
        yield Finding(
            f"{key}.ingress.httpPort",
            show(entry.http_port),
            "is the port of HTTPS too",
            "choose two ports",
        )
    readiness = upstream.readiness
    if readiness is not None and readiness.timeout_seconds > readiness.period_seconds:
        yield Finding(
            f"{key}.readiness.timeoutSeconds",
            show(readiness.timeout_seconds),
            f"is longer than periodSeconds ({readiness.period_seconds})",
            "lower it",
        )
    yield from _unique(
        ((f"{key}.clients[{c.namespace}]", c.namespace) for c in upstream.clients),
        "is the namespace of",
        "name each namespace once",
    )


def _contains(networks: Iterable[str], address: str) -> bool:
    return any(ipaddress.ip_address(address) in ipaddress.ip_network(network) for network in networks)


def _names_in(data: Mapping[str, object], section: str, items: str) -> set[str]:
    """The names that a list declares, also in items that are invalid for another reason."""
    raw = data.get(section)
    listed = raw.get(items) if isinstance(raw, dict) else None
    if not isinstance(listed, list):
        return set()
    return {item["name"] for item in listed if isinstance(item, dict) and isinstance(item.get("name"), str)}
