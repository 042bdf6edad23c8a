"""The program: the components that one stack declares, and what it exports."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import pulumi

from components import aws
from components.broker import Broker, BrokerArgs
from components.certificate import (
    Certificate,
    CertificateArgs,
    TrustArgs,
    carried,
    own_authority,
    refuse_unfit,
)
from components.consumer_egress import ConsumerEgress, ConsumerEgressArgs
from components.gateways import EgressGateway, EgressGatewayArgs, IngressGateway, IngressGatewayArgs
from components.load_balancer import LoadBalancer, LoadBalancerArgs
from components.mesh_ca import MeshCa, MeshCaArgs, mesh_ca
from components.namespaces import declare_namespace
from components.provider_ingress import ProviderIngress, ProviderIngressArgs
from components.reference import Bundles, ProviderReference, read_bundles, refer
from components.resources import KubernetesObject, KubernetesProvider, owner
from components.upstream_egress import EgressGatewayPerUpstream, EgressGatewayPerUpstreamArgs
from components.wildcard_dns import WildcardDns, WildcardDnsArgs
from config import Broker as BrokerConfig
from config import (
    Cluster,
    ConfigError,
    Consumer,
    Finding,
    Gateway,
    Import,
    ImportedEndpoint,
    ImportedProvider,
    Provider,
    ProviderOutputs,
    Stack,
    Upstream,
    names,
)
from routing import broker, consumer
from routing.manifest import claim
from routing.provider import trust_anchor

Outputs: TypeAlias = Mapping[str, object]

RENDERED = Path("build")
"""Folder, below the project's, of the objects that a stack renders instead of applying."""


def declare_stack(
    stack: Stack,
    kubeconfig: pulumi.Input[str] | None = None,
    secrets: Mapping[str, Mapping[str, str]] | None = None,
) -> Outputs:
    """Declares every component of the stack; returns the stack's outputs.

    kubeconfig: contents of the kubeconfig, where the stack carries them as a secret. secrets: the certificates that it
    carries, and the mesh's authority, each as the data of its Secret. Raises pulumi.RunError, before anything is declared, when one of these, or a
    provider's bundle, will not do.
    """
    bundles = read_bundles(stack)
    certificates = _certificates(stack, secrets or {}, bundles)
    authorities = _own_authorities(stack, certificates)
    authority = mesh_ca(stack.cluster, secrets or {})
    program = _Program(stack, kubeconfig, certificates, authorities, bundles)
    outputs: dict[str, object] = {"target": _target(stack.cluster)}
    if authority is not None:
        program.declare_mesh_ca(authority)
    if stack.provider is not None:
        outputs["provider"] = program.declare_provider(stack.provider)
        outputs["wildcardRecord"] = program.record
    if stack.consumer is not None:
        outputs["consumer"] = program.declare_consumer(stack.consumer)
    if stack.upstreams:
        outputs["upstreams"] = [program.declare_upstream(upstream) for upstream in stack.upstreams]
    if stack.broker is not None:
        outputs["broker"] = program.declare_broker(stack.broker)
    missing = list(_missing(stack, authorities))
    if missing:
        outputs["missing"] = missing
    unchecked = list(dict.fromkeys(_unchecked(stack)))
    if unchecked:
        outputs["unchecked"] = unchecked
    return outputs


@dataclass(frozen=True)
class Authorities:
    """PEM of the CA that vouches for each side of the stack; None where nothing is known of it."""

    provider: str | None
    consumer: str | None


class _Program:
    """One run for one stack: its cluster, and the namespaces that it owns there.

    Existing objects are applied over, so that a run takes up what an interrupted one made and, where it refreshes, takes back
    what was changed by hand. Two stacks that would create one gateway are told apart by its claim.
    """

    def __init__(
        self,
        stack: Stack,
        kubeconfig: pulumi.Input[str] | None,
        certificates: Mapping[tuple[str, str], CertificateArgs],
        authorities: Authorities,
        bundles: Bundles,
    ) -> None:
        self._stack = stack
        self._cluster = stack.cluster
        self._authorities = authorities
        self._upstreams = stack.upstreams
        self._bundles = bundles
        self._certificates = certificates
        self._plugin = KubernetesProvider(
            "cluster",
            kubeconfig=kubeconfig if kubeconfig is not None else _file(stack.cluster.kubeconfig),
            context=stack.cluster.context,
            rendered_to=_rendered() if stack.cluster.render else None,
        )
        self._namespaces = {
            name: declare_namespace(name, _registering(stack, name), self._plugin)
            for name in sorted(set(_created_namespaces(stack)))
        }
        self._account = aws.Account("aws", stack.aws) if stack.aws is not None else None
        self.record: Outputs = {}
        self._providers: Mapping[str, ProviderReference] = {}
        self._to_provider: Mapping[str, Sequence[KubernetesObject]] = {}

    def _options(self, *after: pulumi.Resource, formerly: Iterable[str] = ()) -> pulumi.ResourceOptions:
        aliases = [pulumi.Alias(name=name) for name in formerly]
        return pulumi.ResourceOptions(providers=[self._plugin], depends_on=list(after), aliases=aliases)

    def _in(self, namespace: str) -> list[KubernetesObject]:
        return [self._namespaces[namespace]] if namespace in self._namespaces else []

    def _declare_certificate(
        self, gateway: Gateway, args: CertificateArgs, after: Sequence[KubernetesObject]
    ) -> Sequence[KubernetesObject]:
        """The certificate's prerequisites for a server: `after`, and what makes the Secret. It is named after the Secret,
        which another gateway's name leaves where it is."""
        name = f"{args.secret}.{args.namespace}"
        made = Certificate(name, args, self._options(*after, formerly=[f"{gateway.name}-{args.secret}"]))
        return (*after, *made.prerequisites)

    def declare_mesh_ca(self, args: MeshCaArgs) -> None:
        """What istiod signs with."""
        MeshCa("mesh-ca", args, self._options())

    def _claim_secret(
        self, shared: EgressGateway | IngressGateway, namespace: str, secret: str
    ) -> Sequence[KubernetesObject]:
        """The gateway's prerequisites, and the claim of a Secret that the stack makes for it, or for which it says whom to
        trust: of two stacks that would, the second is refused."""
        manifest = claim(secret, namespace, owner())
        return (*shared.prerequisites, shared.kept(f"{secret}-claim", manifest, *shared.prerequisites))

    def declare_provider(self, provider: Provider) -> Outputs:
        """The ingress gateway, its certificate, every export, the load balancer and the wildcard record; the output
        `provider`."""
        shared = IngressGateway(
            provider.ingress_gateway.name,
            IngressGatewayArgs(provider, self._cluster),
            self._options(
                *self._in(provider.ingress_gateway.namespace),
                formerly=_former(provider.ingress_gateway),
            ),
        )
        ingress = provider.ingress_gateway
        prerequisites: Sequence[KubernetesObject] = shared.prerequisites
        certificate = self._certificates.get((ingress.namespace, provider.server_secret))
        authorities = _consumers_authorities(provider, self._bundles)
        if certificate is not None or authorities:
            prerequisites = self._claim_secret(shared, ingress.namespace, provider.server_secret)
        claimed = prerequisites
        if certificate is not None:
            prerequisites = self._declare_certificate(ingress, certificate, claimed)
        if authorities:
            secret, crl = provider.server_secret, provider.consumers_crl
            anchor = shared.kept("ca-consumers", trust_anchor(ingress, secret, authorities, crl), *claimed)
            prerequisites = (*prerequisites, anchor)
        exported = list(_exported(provider, self._stack.control_plane))
        for slug, args, formerly in exported:
            ProviderIngress(slug, args, self._options(*prerequisites, formerly=formerly))
        name = provider.ingress_gateway.name
        balancer = LoadBalancer(
            f"{name}-lb",
            LoadBalancerArgs(provider, self._cluster, shared.service, self._account),
            self._options(formerly=_former(ingress, "-lb")),
        )
        hosts = [args.host for _, args, _ in exported]
        record = WildcardDns(
            f"{name}-dns",
            WildcardDnsArgs(
                provider, hosts, balancer.address, balancer.further, balancer.zone, self._account
            ),
            self._options(shared, balancer, formerly=_former(ingress, "-dns")),
        )
        self.record = {
            "name": record.name,
            "type": record.type,
            "value": record.value,
            "madeBy": record.made_by,
        }
        public = _public_outputs(provider, self._authorities.provider)
        return {**public, "address": balancer.address}

    def declare_consumer(self, config: Consumer) -> Outputs:
        """The egress gateway, its certificates, the providers' CA certificates and every import; the output `consumer`."""
        self._providers = providers = refer(
            config, self._bundles.providers, self._upstreams, self._stack.broker
        )
        known = {provider.public_port for provider in config.providers if provider.source is None}
        referred = [
            providers[provider.name].port for provider in config.providers if provider.source is not None
        ]
        shared = EgressGateway(
            config.egress_gateway.name,
            EgressGatewayArgs(config.egress_gateway, self._cluster, [*sorted(known), *referred]),
            self._options(
                *self._in(config.egress_gateway.namespace), formerly=_former(config.egress_gateway)
            ),
        )
        secrets = {p.name: p.client_secret or config.client_secret for p in config.providers}
        certificates = {
            secret: self._certificates.get((config.egress_gateway.namespace, secret))
            for secret in sorted({*secrets.values()})
        }
        anchored = {secrets[name] for name, p in providers.items() if p.ca_certificate is not None}
        claimed = {
            secret: self._claim_secret(shared, config.egress_gateway.namespace, secret)
            if args is not None or secret in anchored
            else shared.prerequisites
            for secret, args in certificates.items()
        }
        ready = {
            secret: claimed[secret]
            if args is None
            else self._declare_certificate(config.egress_gateway, args, claimed[secret])
            for secret, args in certificates.items()
        }
        prerequisites = {p.name: ready[secrets[p.name]] for p in config.providers}
        for name, provider in providers.items():
            if provider.ca_certificate is not None:
                secret = secrets[name]
                manifest = consumer.trust_anchor(config.egress_gateway, secret, provider.ca_certificate)
                anchor = shared.kept(f"ca-{name}", manifest, *claimed[secret])
                prerequisites[name] = (*prerequisites[name], anchor)
        self._to_provider = prerequisites
        for policy in config.sidecars:
            manifest = consumer.sidecar_policy(config.egress_gateway, self._cluster, policy)
            suffix = f"sidecars-{policy.namespace}"
            owned = claim(str(manifest.name), policy.namespace, owner())
            before = (*shared.prerequisites, *self._in(policy.namespace))
            shared.child(suffix, manifest, shared.child(f"{suffix}-claim", owned, *before))
        endpoints = []
        for imported in config.imports:
            by_name = next(p for p in config.providers if p.name == imported.provider)
            for endpoint in imported.endpoints:
                public = providers[imported.provider].endpoint(imported, endpoint)
                slug = names.slug(imported.name, endpoint.name)
                args = ConsumerEgressArgs(
                    slug=slug,
                    namespace=imported.namespace,
                    cluster=self._cluster,
                    gateway=config.egress_gateway,
                    host=public.host,
                    port=public.port,
                    provider_id=public.provider_id,
                    client_secret=secrets[imported.provider],
                    service=endpoint.service or names.virtual_ip_service(slug),
                    service_port=endpoint.port,
                    service_accounts=imported.service_accounts,
                    cluster_ip=endpoint.cluster_ip,
                    limits=endpoint.limits,
                    connect_timeout=by_name.connect_timeout,
                    keepalive=by_name.keepalive,
                )
                before = (*prerequisites[imported.provider], *self._in(imported.namespace))
                formerly = names.former_slugs(imported, endpoint)
                route = ConsumerEgress(slug, args, self._options(*before, formerly=formerly))
                endpoints.append(_imported_output(route, imported, endpoint))
        return {
            "id": config.id,
            "caCertificate": self._authorities.consumer,
            "egressGateway": f"{config.egress_gateway.namespace}/{config.egress_gateway.name}",
            "endpoints": endpoints,
        }

    def declare_broker(self, config: BrokerConfig) -> Outputs:
        """The broker, and, where its calls go through the egress gateway, their way there; the output `broker`."""
        consumer_, provider = self._stack.consumer, self._stack.provider
        imported = reference = None
        after: list[pulumi.Resource] = [*self._in(config.namespace)]
        if config.role == "consumer" and consumer_ is not None:
            imported = next(p for p in consumer_.providers if p.name == config.provider)
            reference = self._providers[imported.name]
            if config.standalone:
                after.append(self._way_to_broker(config, consumer_, imported, reference))
        args = BrokerArgs(
            config,
            self._cluster,
            upstream=broker.upstream_url(config, self._cluster),
            consumer=consumer_ if config.role == "consumer" else None,
            provider=provider if config.role == "provider" else None,
            imported=imported,
            system_domain=reference.system_domain if reference is not None else None,
        )
        after += [created for namespace in broker.rights(args) for created in self._in(namespace)]
        made = Broker(config.name, args, self._options(*after))
        return {
            "role": config.role,
            "namespace": config.namespace,
            "address": made.address,
            "upstream": made.upstream,
            "bindsIn": list(config.namespaces),
        }

    def _way_to_broker(
        self, config: BrokerConfig, own: Consumer, provider: ImportedProvider, reference: ProviderReference
    ) -> ConsumerEgress:
        """The import of the provider's control-plane route, for the broker's service account alone."""
        public = reference.control_plane(config.upstream.host)
        args = ConsumerEgressArgs(
            slug=names.BROKER_UPSTREAM,
            namespace=config.namespace,
            cluster=self._cluster,
            gateway=own.egress_gateway,
            host=public.host,
            port=public.port,
            provider_id=public.provider_id,
            client_secret=provider.client_secret or own.client_secret,
            service=config.upstream_service,
            service_port=config.service_port,
            service_accounts=(config.name,),
            connect_timeout=provider.connect_timeout,
            keepalive=provider.keepalive,
        )
        before = (*self._to_provider[provider.name], *self._in(config.namespace))
        return ConsumerEgress(names.BROKER_UPSTREAM, args, self._options(*before))

    def declare_upstream(self, config: Upstream) -> Outputs:
        """One upstream with its gateway; its entry of the output `upstreams`."""
        args = EgressGatewayPerUpstreamArgs(config, self._cluster)
        places = dict.fromkeys([config.namespace, *args.foreign_namespaces])
        before = [created for namespace in places for created in self._in(namespace)]
        formerly = [config.formerly] if config.formerly else []
        egress = EgressGatewayPerUpstream(config.name, args, self._options(*before, formerly=formerly))
        return {
            "name": config.name,
            "namespace": config.namespace,
            "gateway": f"{config.namespace}/{args.name}",
            "host": config.host,
            "protocol": config.protocol,
            "address": egress.address,
            "upstream": f"{config.address}:{config.port}",
            "clients": [client.namespace for client in config.clients],
            "from": ["mesh", "ingress"] if config.ingress is not None else ["mesh"],
        }


def _target(cluster: Cluster) -> str:
    if cluster.render:
        return _rendered()
    return f"context {cluster.context}" if cluster.context else "the cluster of the stack's kubeconfig"


def _rendered() -> str:
    return str(RENDERED / pulumi.get_stack())


def _file(kubeconfig: str | None) -> str | None:
    """The path of a kubeconfig. Raises pulumi.RunError where there is none: Pulumi's plugin would take the path for the contents."""
    if kubeconfig is None:
        return None
    path = Path(kubeconfig).expanduser()
    if not path.is_file():
        remedy = "correct the path, or choose `context` or `kubeconfigSecret: true`"
        finding = Finding("cluster.kubeconfig", repr(kubeconfig), "is no file on this machine", remedy)
        raise pulumi.RunError(str(ConfigError([finding])))
    return str(path)


def _created_namespaces(stack: Stack) -> Iterator[str]:
    """The namespaces of gateways and of the broker that the stack creates, and owns."""
    shared = [
        *([stack.consumer.egress_gateway] if stack.consumer else []),
        *([stack.provider.ingress_gateway] if stack.provider else []),
    ]
    yield from (g.namespace for g in shared if not g.adopt and g.create_namespace)
    yield from (upstream.namespace for upstream in stack.upstreams if upstream.create_namespace)
    if stack.broker is not None and stack.broker.create_namespace:
        yield stack.broker.namespace


def _former(gateway: Gateway, suffix: str = "") -> list[str]:
    """The former names of a gateway's component, or of that which has a suffix behind its name."""
    return [gateway.formerly + suffix] if gateway.formerly is not None else []


def _registering(stack: Stack, namespace: str) -> bool:
    """Whether an AWS Network Load Balancer has the Pods of a namespace as its targets."""
    provider = stack.provider
    if provider is None or provider.ingress_gateway.namespace != namespace:
        return False
    return provider.load_balancer is not None and provider.load_balancer.registers_pods


def _exported(
    provider: Provider, control_plane: tuple[str, int] | None
) -> Iterator[tuple[str, ProviderIngressArgs, Sequence[str]]]:
    """Slug, args and former slugs of every exported endpoint, the broker's route among them. control_plane: address and port
    of the broker."""
    common = partial(
        ProviderIngressArgs,
        gateway=provider.ingress_gateway,
        port=provider.port,
        server_secret=provider.server_secret,
        min_tls_version=provider.min_tls_version,
        connect_timeout=provider.connect_timeout,
    )
    for export in provider.exports:
        for endpoint in export.endpoints:
            slug = names.slug(export.name, endpoint.name)
            args = common(
                slug=slug,
                host=endpoint.host,
                consumers=export.consumers,
                address=endpoint.address,
                target_port=endpoint.port,
                limits=endpoint.limits,
            )
            yield slug, args, names.former_slugs(export, endpoint)
    route = provider.control_plane
    if route is not None and control_plane is not None:
        address, port = control_plane
        args = common(
            slug=names.CONTROL_PLANE,
            host=provider.control_plane_host,
            consumers=None if route.open_to_all else route.consumers,
            address=address,
            target_port=port,
        )
        yield names.CONTROL_PLANE, args, ()


def _certificates(
    stack: Stack, secrets: Mapping[str, Mapping[str, str]], bundles: Bundles
) -> Mapping[tuple[str, str], CertificateArgs]:
    """The certificates that the stack makes or has made, by namespace and Secret, all fit for use."""
    try:
        wanted = {(args.namespace, args.secret): args for args in _wanted_certificates(stack, secrets)}
    except ConfigError as error:
        raise pulumi.RunError(str(error)) from error
    refuse_unfit(wanted.values(), _trusted_apart(stack, bundles, wanted))
    return wanted


def _own_authorities(stack: Stack, certificates: Mapping[tuple[str, str], CertificateArgs]) -> Authorities:
    """The CAs that the stack hands out. Raises pulumi.RunError where it is not certain which they are."""
    provider, consumer = stack.provider, stack.consumer
    try:
        return Authorities(
            provider=own_authority(
                "provider",
                provider.ca_certificate,
                certificates.get((provider.ingress_gateway.namespace, provider.server_secret)),
            )
            if provider is not None
            else None,
            consumer=own_authority(
                "consumer",
                consumer.ca_certificate,
                certificates.get((consumer.egress_gateway.namespace, consumer.client_secret)),
            )
            if consumer is not None
            else None,
        )
    except ConfigError as error:
        raise pulumi.RunError(str(error)) from error


def _missing(stack: Stack, authorities: Authorities) -> Iterator[str]:
    """What the stack cannot hand out, and what is to be done about it."""
    if stack.provider is not None and authorities.provider is None:
        yield (
            "provider.caCertificate: the stack does not carry its server certificate, so it hands out no CA and consumers "
            "that refer to it are refused; set it to the PEM of the CA that signs that certificate"
        )


def _unchecked(stack: Stack) -> Iterator[str]:
    """The Secrets with certificates that exist already, which no preview judges, each with the command that does."""
    provider, consumer = stack.provider, stack.consumer
    if provider is not None and not provider.certificate.made:
        yield _how_to_check(
            stack.cluster,
            "provider",
            secret=(provider.ingress_gateway.namespace, provider.server_secret),
            options=["--id", provider.identity, "--usage", "server"],
            has_issuer=provider.ca_certificate is not None,
            trust_elsewhere=provider.brings_ca,
        )
    for imported in consumer.providers if consumer is not None else ():
        if consumer is not None and not (imported.certificate or consumer.certificate).made:
            yield _how_to_check(
                stack.cluster,
                "consumer",
                secret=(consumer.egress_gateway.namespace, imported.client_secret or consumer.client_secret),
                options=["--id", consumer.id, "--usage", "client"],
                has_issuer=consumer.ca_certificate is not None,
                trust_elsewhere=imported.brings_ca,
            )


def _how_to_check(
    cluster: Cluster,
    role: str,
    *,
    secret: tuple[str, str],
    options: Sequence[str],
    has_issuer: bool,
    trust_elsewhere: bool,
) -> str:
    namespace, name = secret
    context = ["--context", cluster.context] if cluster.context is not None else []
    shown = ["kubectl", *context, "get", "secret", name, "--namespace", namespace, "--output", "json"]
    judged = ["python", "-m", "pki", "check", "-", *options]
    if has_issuer:
        judged += ["--issuer", f"{role}.caCertificate.pem"]
    if trust_elsewhere:
        judged.append("--trust-elsewhere")
    return f"Secret {namespace}/{name}: {shlex.join(shown)} | {shlex.join(judged)}"


def _consumers_authorities(provider: Provider, bundles: Bundles) -> str:
    """PEM of the CAs that vouch for the consumers, each once; empty where the server Secret alone says so."""
    if not provider.brings_ca:
        return ""
    # Only a stack that brings authorities pays for the import of `cryptography`.
    from certificates import pem  # noqa: PLC0415

    found = pem.split(f"{provider.consumers_ca_certificate or ''}\n{bundles.consumers}")
    return "".join(dict.fromkeys(block for _, block in found.blocks))


def _trusted_apart(
    stack: Stack, bundles: Bundles, certificates: Mapping[tuple[str, str], CertificateArgs]
) -> Iterator[TrustArgs]:
    """The authorities that stand in the stack by themselves. A carried certificate is judged together with its own."""
    provider, consumer = stack.provider, stack.consumer
    carrying = {args.key for args in certificates.values() if args.data is not None}
    own = {"provider": provider, "consumer": consumer}
    for role, side in own.items():
        if side is not None and side.ca_certificate is not None and f"{role}.certificate" not in carrying:
            yield TrustArgs(
                {"ca.crt": f"{role}.caCertificate"},
                side.ca_certificate,
                None,
                side.certificate.warning_days,
            )
    for imported in consumer.providers if consumer is not None else ():
        if consumer is not None and imported.ca_certificate is not None:
            config = imported.certificate or consumer.certificate
            key = f"consumer.providers[{imported.name}].caCertificate"
            yield TrustArgs({"ca.crt": key}, imported.ca_certificate, None, config.warning_days)
    if provider is not None and provider.brings_ca:
        yield TrustArgs(
            {"ca.crt": "provider.consumersCaCertificate", "ca.crl": "provider.consumersCrl"},
            _consumers_authorities(provider, bundles),
            provider.consumers_crl,
            provider.certificate.warning_days,
        )


def _wanted_certificates(stack: Stack, secrets: Mapping[str, Mapping[str, str]]) -> Iterator[CertificateArgs]:
    provider, consumer = stack.provider, stack.consumer
    if provider is not None and provider.certificate.made:
        key = "provider.certificate"
        yield CertificateArgs(
            key,
            secret=provider.server_secret,
            namespace=provider.ingress_gateway.namespace,
            name=provider.identity,
            usage="server",
            config=provider.certificate,
            cluster=stack.cluster,
            issuer=provider.ca_certificate,
            trust_elsewhere=provider.brings_ca,
            data=carried(key, provider.certificate, secrets),
        )
    if consumer is not None:
        for imported in consumer.providers:
            config = imported.certificate or consumer.certificate
            key = f"consumer.providers[{imported.name}].certificate"
            key = key if imported.certificate is not None else "consumer.certificate"
            if config.made:
                yield CertificateArgs(
                    key,
                    secret=imported.client_secret or consumer.client_secret,
                    namespace=consumer.egress_gateway.namespace,
                    name=consumer.id,
                    usage="client",
                    config=config,
                    cluster=stack.cluster,
                    issuer=consumer.ca_certificate,
                    trust_elsewhere=imported.brings_ca,
                    data=carried(key, config, secrets),
                )


def _public_outputs(provider: Provider, ca_certificate: str | None) -> Outputs:
    public = ProviderOutputs.model_validate(
        {
            "id": provider.identity,
            "system_domain": provider.system_domain,
            "port": provider.port,
            "ca_certificate": ca_certificate,
            "ingress_gateway": f"{provider.ingress_gateway.namespace}/{provider.ingress_gateway.name}",
            "services": {
                export.name: {
                    "consumers": export.consumers,
                    "endpoints": {e.name: {"host": e.host, "port": provider.port} for e in export.endpoints},
                }
                for export in provider.exports
            },
            "control_plane": {"host": provider.control_plane_host, "consumers": route.consumers}
            if (route := provider.control_plane) is not None
            else None,
        }
    )
    return public.model_dump(by_alias=True)


def _imported_output(route: ConsumerEgress, imported: Import, endpoint: ImportedEndpoint) -> Outputs:
    return {
        "name": names.slug(imported.name, endpoint.name),
        "namespace": imported.namespace,
        "serviceAccounts": list(imported.service_accounts),
        "address": route.address,
        "vip": route.vip,
        "host": route.host,
        "port": route.port,
        "providerId": route.provider_id,
    }
