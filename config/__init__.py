"""The vocabulary: what a stack says, as typed, checked, immutable models.

`parse` takes raw data, `load` the running Pulumi stack's keys; both raise ConfigError with every finding.
"""

from config import names, reference
from config.broker import Broker, BrokerUpstream, BrokerVolume, BrokerWorkload, Callers, Probes, Store
from config.certificate import Certificate, CertManager, Issuer
from config.cluster import Cluster, IstioCsr, MeshCa
from config.consumer import Consumer, Import, ImportedEndpoint, Keepalive, Limits, SidecarPolicy
from config.consumer import Provider as ImportedProvider
from config.edge import (
    AccessLogs,
    Aws,
    AwsController,
    AwsNlb,
    Dns,
    ExistingLoadBalancer,
    ExternalDns,
    LoadBalancer,
    NetworkLoadBalancer,
    Route53,
)
from config.errors import ConfigError, Finding
from config.gateway import EgressGateway, Gateway, IngressGateway, PublicService, Workload
from config.provider import ConsumerBundle, ControlPlane, Export, ExportedEndpoint, Provider
from config.reference import ConsumerOutputs, ProviderOutputs, PublicControlPlane, ResolvedEndpoint
from config.stack import Stack, parse
from config.upstream import IngressEntry, MeshClient, Opa, OutlierDetection, Readiness, Tls, Upstream

__all__ = [
    "AccessLogs",
    "Aws",
    "AwsController",
    "AwsNlb",
    "Broker",
    "BrokerUpstream",
    "BrokerVolume",
    "BrokerWorkload",
    "Callers",
    "CertManager",
    "Certificate",
    "Cluster",
    "ConfigError",
    "Consumer",
    "ConsumerBundle",
    "ConsumerOutputs",
    "ControlPlane",
    "Dns",
    "EgressGateway",
    "ExistingLoadBalancer",
    "Export",
    "ExportedEndpoint",
    "ExternalDns",
    "Finding",
    "Gateway",
    "Import",
    "ImportedEndpoint",
    "ImportedProvider",
    "IngressEntry",
    "IngressGateway",
    "Issuer",
    "IstioCsr",
    "Keepalive",
    "Limits",
    "LoadBalancer",
    "MeshCa",
    "MeshClient",
    "NetworkLoadBalancer",
    "Opa",
    "OutlierDetection",
    "Probes",
    "Provider",
    "ProviderOutputs",
    "PublicControlPlane",
    "PublicService",
    "Readiness",
    "ResolvedEndpoint",
    "Route53",
    "SidecarPolicy",
    "Stack",
    "Store",
    "Tls",
    "Upstream",
    "Workload",
    "names",
    "parse",
    "reference",
]
