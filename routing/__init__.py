"""Pure functions from the vocabulary to Kubernetes and Istio objects: the only place where contents are decided.

`consumer`, `provider` and `upstream` hold the objects of one endpoint each, `gateway` those of a gateway's
deployment, `broker` those of the broker's, `certificate` a gateway's Secrets, `tls` what they share. Nothing here knows the engine.
"""

from routing import broker, certificate, consumer, gateway, provider, tls, upstream
from routing.broker import BrokerDeployment
from routing.consumer import ConsumerEndpoint
from routing.gateway import GatewayWorkload
from routing.manifest import Json, Manifest
from routing.provider import ProviderEndpoint
from routing.upstream import UpstreamGateway

__all__ = [
    "BrokerDeployment",
    "ConsumerEndpoint",
    "GatewayWorkload",
    "Json",
    "Manifest",
    "ProviderEndpoint",
    "UpstreamGateway",
    "broker",
    "certificate",
    "consumer",
    "gateway",
    "provider",
    "tls",
    "upstream",
]
