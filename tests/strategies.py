"""Stacks as people could write them: data that is valid by construction, in every mix of roles and options.

The data stands as in a stack file without the prefix `meshbridge:`, so a test sends it through `config.parse`.
"""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

from config.types import RESERVED_PORTS
from tests.authorities import authority

Data = dict[str, Any]

ALPHANUMERIC = "abcxyz019"


def labels(longest: int = 20) -> st.SearchStrategy[str]:
    """DNS labels."""
    edge = st.sampled_from(ALPHANUMERIC)
    middle = st.text(ALPHANUMERIC + "-", max_size=longest - 2)
    return st.one_of(edge, st.tuples(edge, middle, edge).map("".join))


def hosts(domain: str | None = None, longest: int = 20) -> st.SearchStrategy[str]:
    """Fully qualified hosts, below `domain` where one is given."""
    below = st.lists(labels(longest), min_size=1, max_size=3).map(".".join)
    return below.map(lambda prefix: f"{prefix}.{domain or 'example'}")


ports = st.integers(1, 65535).filter(lambda port: port not in RESERVED_PORTS)
listener_ports = st.sampled_from([443, 8443, 9000, 9001, 30000])


def _ips(version: int) -> st.SearchStrategy[str]:
    """Addresses of one machine."""
    drawn = st.ip_addresses(v=version)  # type: ignore[arg-type]
    return drawn.filter(
        lambda a: (
            not (
                a.is_unspecified
                or a.is_loopback
                or a.is_multicast
                or a.is_link_local
                or getattr(a, "ipv4_mapped", None)
            )
        )
    ).map(str)


ipv4 = _ips(4).filter(lambda text: not text.startswith("240.240."))
ipv6 = _ips(6)
durations = st.tuples(st.integers(1, 900), st.sampled_from(["ms", "s", "m", "h"])).map(
    lambda pair: f"{pair[0]}{pair[1]}"
)
limits = st.fixed_dictionaries(
    {},
    optional={
        "maxConnections": st.integers(1, 100_000),
        "idleTimeout": durations,
        "maxConnectionDuration": durations,
    },
)
workloads = st.fixed_dictionaries(
    {"minReplicas": st.integers(1, 3), "maxReplicas": st.integers(3, 9)},
    optional={
        "drainSeconds": st.integers(1, 300),
        "revision": labels(),
        "nodeSelector": st.just({"kubernetes.io/arch": "arm64"}),
        "podAnnotations": st.just({"proxy.istio.io/config": "terminationDrainDuration: 10s"}),
    },
)


def numbered(count: int, prefix: str) -> st.SearchStrategy[list[str]]:
    """Distinct labels."""
    return st.lists(labels(12), min_size=count, max_size=count).map(
        lambda drawn: [f"{prefix}{number}{text}" for number, text in enumerate(drawn)]
    )


@st.composite
def clusters(draw: st.DrawFn) -> Data:
    way: Data = draw(
        st.sampled_from(
            [{"render": True}, {"context": "north"}, {"kubeconfig": __file__}, {"kubeconfigSecret": True}]
        )
    )
    options = st.fixed_dictionaries(
        {},
        optional={
            "trustDomain": st.sampled_from(["cluster.local", "shop.example", "a_b"]),
            "domain": st.sampled_from(["cluster.local", "k8s.corp.example"]),
            "meshNamespace": st.just("mesh-root"),
            "awaitReadiness": st.booleans(),
            "ipFamily": st.sampled_from(["IPv4", "IPv6"]),
        },
    )
    return {**way, **draw(options)}


@st.composite
def gateways(draw: st.DrawFn, role: str, service: st.SearchStrategy[Data] | None = None) -> Data:
    """A shared gateway. Its names hold its role, so that the roles of one stack do not clash."""
    adopt = draw(st.booleans())
    data: Data = {"adopt": adopt}
    if draw(st.booleans()):
        data["name"] = f"{role}-{draw(labels(12))}"
    if draw(st.booleans()):
        data["namespace"] = f"{role}-ns-{draw(labels(12))}"
    if draw(st.booleans()):
        data["labels"] = {"gateway": role, **draw(st.sampled_from([{}, {"tier.example/zone": "Edge_1"}]))}
    if draw(st.booleans()):
        data["serviceAccount"] = f"{role}-account"
    data |= draw(st.fixed_dictionaries({}, optional={"guardUpstreamConnections": st.booleans()}))
    if not adopt:
        data |= draw(st.fixed_dictionaries({}, optional={"createNamespace": st.booleans()}))
        data["workload"] = draw(workloads)
        if service is not None:
            data["service"] = draw(service)
    return data


@st.composite
def imported_providers(draw: st.DrawFn, name: str) -> Data:
    """A provider, spelled out."""
    keepalive = draw(st.integers(1, 349))
    data: Data = {"name": name, "systemDomain": f"istio.{name}.example"}
    optional = st.fixed_dictionaries(
        {},
        optional={
            "id": st.just(f"id.{name}.example"),
            "port": ports,
            "connectTimeout": durations,
            "keepalive": st.just({"timeSeconds": keepalive, "intervalSeconds": 30, "probes": 3}),
            "loadBalancerIdleSeconds": st.integers(max(keepalive, 240) + 1, 4000),
        },
    )
    data |= draw(optional)
    own = draw(st.booleans())
    if own:
        data["clientSecret"] = f"client-of-{name}"
    if own and draw(st.booleans()):
        data["caCertificate"] = authority(name)
    return data


def service_accounts() -> st.SearchStrategy[list[str]]:
    return st.lists(labels(), max_size=3, unique=True)


@st.composite
def consumers(draw: st.DrawFn, family: str) -> Data:
    providers = draw(numbered(draw(st.integers(1, 3)), "p"))
    imports = []
    fixed = draw(st.booleans())
    namespaces = ["shop", "notify", draw(labels())]
    for number, name in enumerate(draw(numbered(draw(st.integers(0, 3)), "i"))):
        provider = draw(st.sampled_from(providers))
        endpoints = []
        for index, endpoint in enumerate(draw(numbered(draw(st.integers(1, 2)), "e"))):
            data: Data = {
                "name": endpoint,
                "host": draw(hosts(f"n{number}-{index}.istio.{provider}.example")),
            }
            data |= draw(st.fixed_dictionaries({}, optional={"port": ports, "limits": limits}))
            if draw(st.booleans()):
                data["service"] = f"local-{number}-{index}"
            if fixed:
                data["clusterIp"] = (
                    f"fd00::{number}:{index}" if family == "IPv6" else f"10.96.{number}.{index}"
                )
            endpoints.append(data)
        imports.append(
            {
                "name": name,
                "provider": provider,
                "namespace": draw(st.sampled_from(namespaces)),
                "serviceAccounts": draw(service_accounts()),
                "endpoints": endpoints,
            }
        )
    return {
        "id": draw(hosts()),
        "egressGateway": {**draw(gateways("egress")), "port": draw(listener_ports)},
        "providers": [draw(imported_providers(name)) for name in providers],
        "imports": imports,
        "sidecars": [
            {"namespace": name, "limits": draw(limits)}
            for name in draw(st.sampled_from([[], ["shop"], ["notify", "shop"]]))
        ],
    }


any_service = {
    "annotations": st.just({"service.beta.kubernetes.io/aws-load-balancer-scheme": "internet-facing"}),
    "externalTrafficPolicy": st.sampled_from(["Cluster", "Local"]),
}
public_services = st.fixed_dictionaries(
    {},
    optional={
        "type": st.just("LoadBalancer"),
        "loadBalancerClass": st.just("service.k8s.aws/nlb"),
        "sourceRanges": st.just(["192.0.2.0/24", "2001:db8::/32"]),
        **any_service,
    },
) | st.fixed_dictionaries({"type": st.sampled_from(["NodePort", "ClusterIP"])}, optional=any_service)

ELB_ARN = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:{}/edge/0123456789abcdef"
accounts = st.fixed_dictionaries(
    {}, optional={"account": st.just("123456789012"), "tags": st.just({"team": "edge"})}
)

addresses = st.one_of(ipv4, ipv6, hosts("svc.cluster.local"))


@st.composite
def control_planes(draw: st.DrawFn, domain: str) -> Data:
    open_to_all = draw(st.booleans())
    data: Data = {"address": draw(addresses), "port": draw(ports), "openToAll": open_to_all}
    if not open_to_all:
        data["consumers"] = draw(st.lists(hosts(), min_size=1, max_size=2, unique=True))
    if draw(st.booleans()):
        data["host"] = f"broker.{domain}"
    return data


@st.composite
def load_balancers(draw: st.DrawFn, family: str, *, adopted: bool) -> Data:
    """A load balancer of any kind."""
    existing: Data = draw(
        st.sampled_from(
            [
                {"address": "lb.example"},
                {"address": "192.0.2.9", "proxyProtocol": not adopted},
                {"arn": ELB_ARN.format("loadbalancer/net"), "targetGroupArn": ELB_ARN.format("targetgroup")},
            ]
        )
    )
    network: Data = draw(
        st.fixed_dictionaries(
            {"ipAddressType": st.sampled_from(["dualstack"] if family == "IPv6" else ["ipv4", "dualstack"])},
            optional={
                "scheme": st.sampled_from(["internet-facing", "internal"]),
                "clientAddress": st.sampled_from(
                    ["preserve", "none", *([] if adopted else ["proxy-protocol"])]
                ),
                "sourceRanges": st.just(["192.0.2.0/24", "2001:db8::/32"]),
                "crossZone": st.booleans(),
                "deregistrationSeconds": st.integers(0, 3600),
            },
        )
    )
    if network["ipAddressType"] == "ipv4" and "sourceRanges" in network:
        network["sourceRanges"] = network["sourceRanges"][:1]
    own = {**network, "subnets": ["subnet-0000000a", "subnet-0000000b"]}
    if own.get("scheme") != "internal" and draw(st.booleans()):
        own["elasticIps"] = True
    kinds: list[Data] = [{"existing": existing}, {"awsNlb": own}]
    if not adopted:
        kinds.append({"awsController": network})
    return draw(st.sampled_from(kinds))


@st.composite
def edges(draw: st.DrawFn, cluster: Data, gateway: Data, domain: str) -> Data:
    """A load balancer and a record that fit the gateway; the gateway's Service gives way to the former."""
    adopted = bool(gateway.get("adopt"))
    data: Data = {}
    if draw(st.booleans()):
        data["loadBalancer"] = draw(load_balancers(cluster.get("ipFamily", "IPv4"), adopted=adopted))
        if "existing" not in data["loadBalancer"]:
            gateway.pop("service", None)
        if "proxy" in str(data["loadBalancer"]):
            gateway.get("workload", {}).pop("podAnnotations", None)
    balancer = data.get("loadBalancer", {})
    on_service = not adopted and gateway.get("service", {}).get("type", "LoadBalancer") == "LoadBalancer"
    stands = "awsController" in balancer or (not balancer and on_service)
    known = bool({"awsNlb", "existing"} & balancer.keys()) or (stands and not cluster.get("render"))
    makers: list[Data] = [{"externalDns": {}}] if stands else []
    if known:
        zone = draw(st.sampled_from([domain, domain.partition(".")[2]]))
        zone = zone if "." in zone else domain
        makers += [{"route53": {"zone": zone}}, {"externalDns": {"source": "dns-endpoint"}}]
    wanted: bool = draw(st.booleans())
    if makers and wanted:
        data["dns"] = draw(st.sampled_from(makers))
    return data


def uses_aws(provider: Data) -> bool:
    """Whether a provider's load balancer or record lies in an AWS account."""
    balancer, dns = provider.get("loadBalancer", {}), provider.get("dns", {})
    return "awsNlb" in balancer or "arn" in balancer.get("existing", {}) or "route53" in dns


@st.composite
def providers(draw: st.DrawFn, cluster: Data) -> Data:
    domain = draw(hosts())
    exports = []
    for number, name in enumerate(draw(numbered(draw(st.integers(0, 3)), "x"))):
        endpoints = []
        for index, endpoint in enumerate(draw(numbered(draw(st.integers(1, 2)), "e"))):
            data = {
                "name": endpoint,
                "host": draw(hosts(f"n{number}-{index}.{domain}", longest=8)),
                "address": draw(addresses),
                "port": draw(ports),
            }
            endpoints.append({**data, **draw(st.fixed_dictionaries({}, optional={"limits": limits}))})
        consumers = draw(st.lists(hosts(), min_size=1, max_size=3, unique=True))
        exports.append({"name": name, "consumers": consumers, "endpoints": endpoints})
    optional = st.fixed_dictionaries(
        {},
        optional={
            "id": hosts(),
            "port": listener_ports,
            "serverSecret": labels(),
            "caCertificate": st.just(authority("server")),
            "minTlsVersion": st.sampled_from(["TLSV1_2", "TLSV1_3"]),
            "connectTimeout": durations,
            "controlPlane": control_planes(domain),
        },
    )
    gateway = draw(gateways("ingress", public_services))
    return {
        "systemDomain": domain,
        "ingressGateway": gateway,
        "exports": exports,
        **draw(optional),
        **draw(edges(cluster, gateway, domain)),
    }


@st.composite
def upstreams(draw: st.DrawFn, name: str) -> Data:
    protocol = draw(st.sampled_from(["HTTPS", "HTTP", "TCP", "TLS"]))
    is_http, is_tls = protocol in {"HTTPS", "HTTP"}, protocol in {"HTTPS", "TLS"}
    address = draw(st.one_of(ipv4, ipv6, st.just(f"{name}.example.org")))
    data: Data = {
        "name": name,
        "namespace": f"gateway-{name}",
        "protocol": protocol,
        "host": draw(hosts(f"{name}.upstream.internal")),
        "address": address,
        "port": draw(ports),
        "clients": [
            {"namespace": namespace, "serviceAccounts": draw(service_accounts())}
            for namespace in draw(st.sampled_from([["shop"], ["notify"], ["shop", "notify"]]))
        ],
    }
    data |= draw(
        st.fixed_dictionaries(
            {},
            optional={
                "createNamespace": st.booleans(),
                "readiness": st.just({"image": "probe:1", "command": ["/probe"]}),
                "outlierDetection": st.just({"consecutiveErrors": 3}),
                "egressCidrs": st.just(["0.0.0.0/0", "::/0"]),
                "confineClients": st.just(["10.0.0.0/8"]),
                "connectTimeout": durations,
                "limits": limits,
                "guardUpstreamConnections": st.booleans(),
                "workload": workloads,
            },
        )
    )
    if is_tls:
        tls = st.fixed_dictionaries(
            {"sni": hosts(f"{name}.example.org")},
            optional={
                "subjectAltNames": st.lists(hosts(), min_size=1, max_size=2, unique=True),
                "credentialSecret": st.just(f"ca-of-{name}"),
            },
        )
        data["tls"] = draw(tls)
        if "credentialSecret" in data["tls"]:
            data["tls"]["clientCertificate"] = draw(st.booleans())
    if not is_http and draw(st.booleans()):
        data["servicePort"] = draw(ports)
    if is_http and draw(st.booleans()):
        data["ingress"] = {
            "namespace": "istio-ingress",
            "labels": {"istio": "ingressgateway"},
            "serviceAccount": "istio-ingressgateway",
            "serverSecret": f"server-of-{name}",
        }
    if is_http and draw(st.booleans()):
        data["opa"] = {"image": "opa:1", "configMap": "policy", "extensionProvider": f"opa-{name}"}
    return data


@st.composite
def brokers(draw: st.DrawFn, data: Data) -> Data:
    """A broker for a stack with these sections. Where the control-plane route leads to it, that loses its own address."""
    kinds = ["forward"]
    if "provider" in data:
        kinds.append("provider")
    if "consumer" in data:
        kinds += ["standalone", "plugin"]
    kind = draw(st.sampled_from(kinds))
    role = "consumer" if kind in {"standalone", "plugin"} else kind
    route = data["provider"].get("controlPlane") if role == "provider" else None
    callers: Data = draw(st.sampled_from([{"secret": "callers"}, {"anonymous": True}]))
    callers = {**callers, "namespaces": ["catalog"]}
    if route is None and draw(st.booleans()):
        callers |= {"networks": ["192.0.2.0/24", "2001:db8::/32"], "tlsSecret": "broker-tls"}
    upstream: Data = draw(st.fixed_dictionaries({}, optional={"secret": st.just("next")}))
    if kind != "standalone":
        upstream |= draw(
            st.sampled_from(
                [
                    {"url": "http://manager.platform.svc.cluster.local", "podPort": 8080},
                    {"url": "https://manager.example/v1/osb/7", "caSecret": "ca", "clientCertificate": True},
                ]
            )
        )
    broker: Data = {"role": role, "image": "broker:1", "callers": callers, "upstream": upstream}
    if role != "forward":
        broker["networkProfile"] = "urn:local.example:public"
        if draw(st.booleans()):
            broker |= {"store": {"secret": "store"}, "replicas": draw(st.integers(1, 3))}
        elif draw(st.booleans()):
            broker["volume"] = {"size": "5Gi", "storageClass": "fast"}
        broker |= draw(
            st.fixed_dictionaries(
                {}, optional={"limits": limits, "shards": st.integers(1, 9), "refuse": st.just(["conflict"])}
            )
        )
    if role == "consumer":
        named = [provider["name"] for provider in data["consumer"]["providers"]]
        broker |= {"provider": draw(st.sampled_from(named)), "namespaces": ["shop", "billing"]}
    if role == "provider" and draw(st.booleans()):
        broker["planMetadata"] = {"supportedPlatforms": ["kubernetes"], "bullets": {"a": 1}}
    if route is not None:
        del route["address"], route["port"]
    optional = st.fixed_dictionaries(
        {},
        optional={
            "name": labels().map(lambda text: f"b-{text}"),
            "namespace": labels().map(lambda text: f"broker-{text}"),
            "createNamespace": st.booleans(),
            "port": st.sampled_from([8080, 9000]),
            "probes": st.just({"periodSeconds": 3}),
            "traces": st.just({"url": "http://collector.observability.svc:4318"}),
            "workload": st.just({"nodeSelector": {"kubernetes.io/arch": "arm64"}}),
        },
    )
    return {**broker, **draw(optional)}


@st.composite
def stacks(draw: st.DrawFn) -> Data:
    """A valid stack of one to three roles."""
    cluster = draw(clusters())
    roles = draw(st.sets(st.sampled_from(["consumer", "provider", "upstreams"]), min_size=1))
    data: Data = {"cluster": cluster}
    if "consumer" in roles:
        data["consumer"] = draw(consumers(cluster.get("ipFamily", "IPv4")))
    if "provider" in roles:
        data["provider"] = draw(providers(cluster))
        if uses_aws(data["provider"]):
            data["aws"] = {"region": "eu-central-1", **draw(accounts)}
    if "upstreams" in roles:
        data["upstreams"] = [draw(upstreams(name)) for name in draw(numbered(draw(st.integers(1, 3)), "u"))]
    data = copy.deepcopy(data)
    if draw(st.booleans()):
        data["broker"] = draw(brokers(data))
    return copy.deepcopy(data)  # st.just draws the same object each time, and tests change what they draw
