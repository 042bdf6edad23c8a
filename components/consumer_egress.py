"""ConsumerEgress: one endpoint of a provider's service, as a virtual IP in an application's namespace."""

from __future__ import annotations

import pulumi

from components.component import Component, subnets, virtual_ip
from components.resources import owner
from routing import ConsumerEndpoint as ConsumerEgressArgs
from routing import consumer
from routing.manifest import claim

__all__ = ["ConsumerEgress", "ConsumerEgressArgs"]


class ConsumerEgress(Component):
    """Application -> virtual IP -> sidecar -> egress gateway -> provider.

    The objects are made from the provider's end to the application's, and deleted the other way round: at no time
    does a route exist whose next hop lacks its TLS, so a half-made endpoint refuses connections. The claim comes first,
    so that of two stacks with one endpoint's name on one gateway the second is refused.
    """

    address: pulumi.Output[str]
    """Local address, `host:port`, that applications use."""

    vip: pulumi.Output[str | None]
    """The virtual IP; None where objects are only rendered and no address is fixed."""

    host: pulumi.Output[str]
    """Public host of the endpoint: the SNI on both TLS legs."""

    port: pulumi.Output[int]
    """Public port of the provider."""

    provider_id: pulumi.Output[str]
    """DNS SAN that the provider's certificate must carry."""

    def __init__(
        self, name: str, args: ConsumerEgressArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(name, opts)
        owned = self.child("claim", claim(args.name, args.gateway.namespace, owner()))
        admission = (
            [] if args.service_accounts else [self.child("admission", consumer.admission(args), owned)]
        )
        entry = self.child("service-entry", consumer.service_entry(args), owned)
        upstream_rule = self.child("upstream-rule", consumer.upstream_rule(args), entry)
        server = self.child("egress-server", consumer.egress_server(args), *admission, upstream_rule)
        egress_route = self.child("egress-route", consumer.egress_route(args), server)
        sidecar_rule = self.child("sidecar-rule", consumer.sidecar_rule(args), egress_route)
        service = self.kept("virtual-ip", consumer.virtual_ip(args), sidecar_rule)
        vip = virtual_ip(service, args.cluster_ip, rendered=args.cluster.render)
        self.child("mesh-route", consumer.mesh_route(args, subnets(vip)), service)

        self.address = pulumi.Output.from_input(f"{args.service_host}:{args.service_port}")
        self.vip = pulumi.Output.from_input(vip)
        self.host = pulumi.Output.from_input(args.host).apply(str)
        self.port = pulumi.Output.from_input(args.port).apply(_port)
        self.provider_id = pulumi.Output.from_input(args.provider_id).apply(str)
        self.register_outputs(
            {
                "address": self.address,
                "vip": self.vip,
                "host": self.host,
                "port": self.port,
                "providerId": self.provider_id,
            }
        )


def _port(value: object) -> int:
    if not isinstance(value, (int, float)):
        raise TypeError(f"port {value!r} is no number")
    return int(value)
