"""ProviderIngress: one endpoint of a service, offered to named consumers under a public host."""

from __future__ import annotations

import pulumi

from components.component import Component
from components.resources import owner
from routing import ProviderEndpoint as ProviderIngressArgs
from routing import provider
from routing.manifest import claim

__all__ = ["ProviderIngress", "ProviderIngressArgs"]


class ProviderIngress(Component):
    """Internet -> ingress gateway -> service. The server, which admits by certificate, exists before any route.

    A gateway that the stack creates may reach nothing but the exported services; an adopted one keeps its own
    network policies. The claim comes first, so that of two stacks with one endpoint's name on one gateway the second is
    refused.
    """

    host: pulumi.Output[str]
    """Public host: the SNI that clients send."""

    port: pulumi.Output[int]
    """Public port."""

    def __init__(
        self, name: str, args: ProviderIngressArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(name, opts)
        owned = self.child("claim", claim(args.name, args.gateway.namespace, owner()))
        entry = self.child("service-entry", provider.service_entry(args), owned)
        rule = self.child("service-rule", provider.service_rule(args), entry)
        server = self.child("public-server", provider.public_server(args), rule)
        self.child("public-route", provider.public_route(args), server)
        if not args.gateway.adopt:
            self.child("reach", provider.reach(args), owned)

        self.host = pulumi.Output.from_input(args.host)
        self.port = pulumi.Output.from_input(args.port)
        self.register_outputs({"host": self.host, "port": self.port})
