"""The components: ComponentResources that own the objects of `routing` and the order between them.

`declare_stack` declares all of a stack; each component can be used by itself with its args.
"""

from components.broker import Broker, BrokerArgs
from components.certificate import Certificate, CertificateArgs
from components.consumer_egress import ConsumerEgress, ConsumerEgressArgs
from components.gateways import EgressGateway, EgressGatewayArgs, IngressGateway, IngressGatewayArgs
from components.load_balancer import LoadBalancer, LoadBalancerArgs
from components.program import declare_stack
from components.provider_ingress import ProviderIngress, ProviderIngressArgs
from components.resources import KubernetesProvider
from components.upstream_egress import EgressGatewayPerUpstream, EgressGatewayPerUpstreamArgs
from components.wildcard_dns import WildcardDns, WildcardDnsArgs

__all__ = [
    "Broker",
    "BrokerArgs",
    "Certificate",
    "CertificateArgs",
    "ConsumerEgress",
    "ConsumerEgressArgs",
    "EgressGateway",
    "EgressGatewayArgs",
    "EgressGatewayPerUpstream",
    "EgressGatewayPerUpstreamArgs",
    "IngressGateway",
    "IngressGatewayArgs",
    "KubernetesProvider",
    "LoadBalancer",
    "LoadBalancerArgs",
    "ProviderIngress",
    "ProviderIngressArgs",
    "WildcardDns",
    "WildcardDnsArgs",
    "declare_stack",
]
