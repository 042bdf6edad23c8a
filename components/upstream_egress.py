"""EgressGatewayPerUpstream: one service outside every mesh, behind an egress gateway of its own."""

from __future__ import annotations

from collections.abc import Mapping

import pulumi

from components.component import Component, subnets, virtual_ip
from components.gateways import declare_workload
from components.resources import KubernetesObject, owner
from routing import UpstreamGateway as EgressGatewayPerUpstreamArgs
from routing import upstream
from routing.manifest import claim

__all__ = ["EgressGatewayPerUpstream", "EgressGatewayPerUpstreamArgs"]


class EgressGatewayPerUpstream(Component):
    """Application (or ingress gateway) -> the upstream's own gateway -> upstream.

    The gateway's identity, rights and policies exist before its Pods; the way to the upstream exists before the
    server that opens it, and the clients' route comes after both. The host of an HTTP upstream is made known to sidecars
    last: one that knows it and has no route sends requests to wherever the host resolves, in plain text. What lies in the
    clients' namespaces and in the ingress gateway's is claimed there, since an upstream of another namespace may have this one's
    name.
    """

    address: pulumi.Output[str]
    """What applications address: `http://<host>`, or `host:port` of the virtual IP for TCP and TLS."""

    def __init__(
        self, name: str, args: EgressGatewayPerUpstreamArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(name, opts)
        config = args.upstream
        gateway = declare_workload(self, upstream.workload(args), guarded=config.guard_upstream_connections)
        first = gateway.prerequisites
        policies = [
            self.child("peer-authentication", upstream.peer_authentication(args), *first),
            self.child("access-policy", upstream.access_policy(args), *first),
        ]
        if config.opa is not None:
            opa = self.child("opa-service", upstream.opa_service(args, config.opa.port), *first)
            policies.append(
                self.child("opa-policy", upstream.opa_policy(args, config.opa.extension_provider), opa)
            )
        entry = self.child("service-entry", upstream.service_entry(args), *first)
        rule = self.child("upstream-rule", upstream.upstream_rule(args), entry)
        server = self.child("egress-server", upstream.server(args), rule, *policies)
        egress_route = self.child("egress-route", upstream.egress_route(args), server)
        mesh_rule = self.child("mesh-rule", upstream.mesh_rule(args), egress_route)
        claims = {
            namespace: self.child(f"claim-{namespace}", claim(args.name, namespace, owner()), *first)
            for namespace in args.foreign_namespaces
        }
        address = (
            self._declare_http(args, mesh_rule, claims)
            if config.is_http
            else self._declare_tcp(args, mesh_rule)
        )
        for client in config.clients if config.confine_clients else ():
            self.child(
                f"confinement-{client.namespace}",
                upstream.confinement(args, client.namespace, config.confine_clients),
                *first,
                claims[client.namespace],
            )
        self.address = pulumi.Output.from_input(address)
        self.register_outputs({"address": self.address})

    def _declare_http(
        self,
        args: EgressGatewayPerUpstreamArgs,
        mesh_rule: KubernetesObject,
        claims: Mapping[str, KubernetesObject],
    ) -> str:
        route = self.child("mesh-route", upstream.mesh_route(args), mesh_rule)
        self.child("mesh-host", upstream.mesh_host(args), route)
        entry = args.upstream.ingress
        if entry is not None:
            server = upstream.ingress_server(args, entry)
            self.child("ingress-server", server, route, claims[entry.namespace])
        return f"http://{args.upstream.host}"

    def _declare_tcp(self, args: EgressGatewayPerUpstreamArgs, mesh_rule: KubernetesObject) -> str:
        service = self.child("virtual-ip", upstream.virtual_ip(args), mesh_rule)
        vip = virtual_ip(service, args.upstream.cluster_ip, rendered=args.cluster.render)
        self.child("mesh-route", upstream.mesh_route(args, subnets(vip)), service)
        return f"{args.service_host}:{args.upstream.service_port}"
