"""Broker: the Open Service Broker proxy of a cluster, which makes the routes of the bindings that pass through it."""

from __future__ import annotations

import hashlib

import pulumi

from components.component import Component
from components.resources import owner
from routing import BrokerDeployment as BrokerArgs
from routing import broker
from routing.manifest import claim

__all__ = ["Broker", "BrokerArgs"]


class Broker(Component):
    """Callers -> broker -> next broker. Its rights, restrictions and settings exist before its Pods, and the Service last."""

    address: pulumi.Output[str]
    """Local address, `host:port`, under which it is called."""

    upstream: pulumi.Output[str]
    """URL of the next broker."""

    def __init__(self, name: str, args: BrokerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        text = pulumi.Output.json_dumps(broker.settings(args), sort_keys=True)
        owned = self.child("claim", claim(args.name, args.namespace, owner()))
        before = [
            self.child("network-policy", broker.network_policy(args), owned),
            self.child("settings", broker.config_map(args, text), owned),
        ]
        account = self.child("service-account", broker.service_account(args), owned)
        for namespace in broker.rights(args):
            role = self.child(f"routes-{namespace}", broker.route_maker(args, namespace), account)
            granted = broker.route_maker_binding(args, namespace)
            before.append(self.child(f"routes-{namespace}-binding", granted, role))
        if args.keeps:
            before.append(self.child("data", broker.volume_claim(args), owned))
        digest = text.apply(lambda known: hashlib.sha256(known.encode()).hexdigest())
        deployment = self.child("deployment", broker.deployment(args, digest), account, *before)
        self.child("disruption-budget", broker.disruption_budget(args), deployment)
        self.child("service", broker.service(args), deployment)

        self.address = pulumi.Output.from_input(f"{args.host}:{args.config.port}")
        self.upstream = pulumi.Output.from_input(args.upstream)
        self.register_outputs({"address": self.address, "upstream": self.upstream})
