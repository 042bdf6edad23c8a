"""The constrained values of the vocabulary: names, hosts, ports, durations, certificates.

Sources: RFC 1123 (host names), Kubernetes' "Object Names and IDs", Istio's reference of Gateway, ServiceEntry
and DestinationRule. Istio and the API server accept several values that never carry traffic (upper-case or
dotless hosts, empty SAN lists); they are refused here.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from config.docs import describe
from config.errors import HOLDS_KEY, holds_private_key, refuse

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
DURATION = re.compile(r"[1-9][0-9]*(ms|s|m|h)")
LABEL_TEXT = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
SUBDOMAIN = re.compile(rf"{LABEL.pattern}(\.{LABEL.pattern})*")
TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+")
DEFAULT_PORT = 9000
"""Public port of a provider that says no other."""

STATUS_PORT = 15021
"""Port of the proxy on which kubelets and load balancers ask whether it is ready."""

TELEMETRY_PORT = 15090
"""Port of the proxy's Prometheus endpoint."""

RESERVED_PORTS = (15000, 15001, 15004, 15006, 15008, 15020, STATUS_PORT, 15053, TELEMETRY_PORT)
"""Ports on which a proxy itself listens (Istio's "Application Requirements")."""

UNITS = {"": 1, "m": 0.001, "k": 1e3, "Ki": 2**10, "M": 1e6, "Mi": 2**20, "G": 1e9, "Gi": 2**30}
QUANTITY = re.compile(rf"[0-9]+(\.[0-9]+)?({'|'.join(UNITS)})")
FINGERPRINT = re.compile(r"[0-9a-f]{64}")
AUTO_ALLOCATED = ipaddress.ip_network("240.240.0.0/16")
HOSTED_ZONE_ID = re.compile(r"Z[A-Z0-9]{5,31}")
IMAGE = re.compile(r"[\w][\w.:/@+-]*")
MAX_LABEL = 63
MAX_HOST = 253
MAX_INT = 2**31 - 1
"""Largest number of the fields that the API server reads as int32."""

MAX_DURATION = 2_562_047 * 3600
"""Seconds, 292 years: the API server and Envoy count nanoseconds in 64 bits."""


T = TypeVar("T")


class Model(BaseModel):
    """A section of the vocabulary: immutable, camelCase keys, unknown keys refused, types taken literally."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        json_schema_extra=describe,
    )


def is_ip(text: str) -> bool:
    """Whether `text` is an IPv4 or IPv6 address; one with a zone (`fe80::1%eth0`) is none, being meant for one node."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def _label(value: str) -> str:
    if len(value) > MAX_LABEL:
        raise refuse(f"has {len(value)} characters, at most {MAX_LABEL} are allowed", "shorten it")
    if not LABEL.fullmatch(value):
        raise refuse(
            "is no DNS label: lower-case letters, digits and '-', beginning and ending with a letter or digit",
            f"write for example {_suggest(value)!r}",
        )
    return value


def _service_name(value: str) -> str:
    if _label(value)[0].isdigit():
        raise refuse(
            "is no name of a Service: the API server wants a letter first (RFC 1035)",
            f"write for example {_suggest(f'svc-{value}')!r}",
        )
    return value


def _suggest(value: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", value.lower()).strip("-")[:MAX_LABEL].strip("-") or "orders"


def _host(value: str) -> str:
    if "*" in value:
        raise refuse(
            "is a wildcard; every endpoint has one exact host, because the SNI chooses it",
            "name the host itself",
        )
    if value != value.lower():
        raise refuse(
            "has upper-case letters; Istio compares the SNI literally, so it would never match",
            f"write {value.lower()!r}",
        )
    if is_ip(value):
        raise refuse("is an IP address; an SNI is a host name", "use the DNS name that resolves to it")
    labels = value.split(".")
    if len(value) > MAX_HOST or any(len(label) > MAX_LABEL for label in labels):
        raise refuse(
            f"is too long: a host has at most {MAX_HOST} characters, each label {MAX_LABEL}", "shorten it"
        )
    if labels[-1].isdigit():
        raise refuse(
            "ends with a number, so resolvers take it for an IP address and it is none",
            "write the whole address or a DNS name",
        )
    if len(labels) < 2 or not all(LABEL.fullmatch(label) for label in labels):
        raise refuse(
            "is no fully qualified host name: at least two labels of lower-case letters, digits and '-'",
            "write for example 'orders.istio.example.com', without scheme, port or trailing dot",
        )
    return value


def _identity(value: str) -> str:
    if not value.strip():
        raise refuse(
            "is empty, which would switch the check of the peer's certificate off",
            "name the DNS SAN that the peer's certificate carries",
        )
    return _host(value)


def _port(value: int) -> int:
    if not 1 <= value <= 65535:
        raise refuse("is out of range: ports go from 1 to 65535", "choose a port in that range")
    return value


def _address(value: str) -> str:
    return _ip(value) if is_ip(value) else _host(value)


def _ip(value: str) -> str:
    if not is_ip(value):
        raise refuse("is no IP address", "write an IPv4 or IPv6 address")
    address = ipaddress.ip_address(value)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        raise refuse("is an IPv4 address that is written as one of IPv6", f"write '{address.ipv4_mapped}'")
    if address.is_link_local:
        raise refuse(
            "is a link-local address, which is another machine's, or none, on every link",
            "write the address at which it is reached from elsewhere",
        )
    if address.is_unspecified or address.is_loopback or address.is_multicast:
        raise refuse(
            "is the address of no single machine, or of whichever asks: unspecified, loopback or multicast",
            "write the address at which it is reached from elsewhere",
        )
    return value


def _image(value: str) -> str:
    if not IMAGE.fullmatch(value):
        raise refuse("is no image of a container", "write for example 'registry.example.org/opa:1.0-envoy'")
    return value


def _cidr(value: str) -> str:
    try:
        network = ipaddress.ip_network(value)
    except ValueError as error:
        raise refuse(f"is no CIDR block ({error})", "write for example '10.0.0.0/8'") from error
    if "%" in value or value.partition("/")[2] != str(network.prefixlen):
        raise refuse(
            "is no CIDR block as the API server reads it: an address, '/' and the length of the prefix",
            f"write {re.sub('%[^/]*', '', str(network))!r}",
        )
    return value


def _subdomain(value: str) -> str:
    if len(value) > MAX_HOST or not SUBDOMAIN.fullmatch(value):
        raise refuse(
            "is no object name: lower-case letters, digits, '-' and '.'",
            f"write for example {_suggest(value)!r}",
        )
    return value


def _duration(value: str) -> str:
    if not DURATION.fullmatch(value):
        raise refuse("is no duration: a whole number with a unit of ms, s, m or h", "write for example '30s'")
    if seconds(value) > MAX_DURATION:
        raise refuse(f"is too long: at most {MAX_DURATION // 3600}h are allowed", "shorten it")
    return value


def _quantity(value: str) -> str:
    if not QUANTITY.fullmatch(value):
        raise refuse("is no Kubernetes quantity", "write for example '500m' (CPU) or '256Mi' (memory)")
    if not quantity(value):
        raise refuse("is nothing", "write for example '500m' (CPU) or '256Mi' (memory)")
    return value


def _cpu(value: str) -> str:
    if _quantity(value).removesuffix("m")[-1].isalpha():
        raise refuse(
            "is no amount of CPU, which is counted in CPUs: no node has as many",
            "write for example '500m' or '2'",
        )
    return value


def _bytes(value: str) -> str:
    if _quantity(value).endswith("m"):
        raise refuse("is no amount of memory: thousandths of a byte", "write for example '256Mi'")
    return value


def _positive(value: int) -> int:
    if value < 1:
        raise refuse("must be 1 or more", "choose a larger number, or leave it out for no limit")
    if value > MAX_INT:
        raise refuse(f"is out of range: at most {MAX_INT}", "choose a smaller number")
    return value


def _percent(value: int) -> int:
    if not 1 <= value <= 100:
        raise refuse("is out of range: 1 to 100", "choose a percentage in that range")
    return value


def _certificates(value: str) -> str:
    if holds_private_key(value):
        raise refuse(HOLDS_KEY, "give only the CA certificate here and revoke that key")
    begin, end = value.count("-----BEGIN CERTIFICATE-----"), value.count("-----END CERTIFICATE-----")
    if not begin or begin != end:
        raise refuse("is no PEM certificate", "paste the text from '-----BEGIN CERTIFICATE-----' on")
    return value


def _revocation_lists(value: str) -> str:
    if holds_private_key(value):
        raise refuse(HOLDS_KEY, "give only revocation lists here and revoke that key")
    begin, end = value.count("-----BEGIN X509 CRL-----"), value.count("-----END X509 CRL-----")
    if not begin or begin != end:
        raise refuse("is no PEM revocation list", "paste the text from '-----BEGIN X509 CRL-----' on")
    return value


def _fingerprint(value: str) -> str:
    digits = value.lower().removeprefix("sha256:").replace(":", "")
    if not FINGERPRINT.fullmatch(digits):
        raise refuse(
            "is no SHA-256: 64 hexadecimal digits, with or without ':' between them",
            "write it as `python -m pki bundle show` or `openssl x509 -fingerprint -sha256` does",
        )
    return digits


def _pinned_image(value: str) -> str:
    name, _, digest = _image(value).partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    if not digest and (not tag or tag == "latest"):
        raise refuse(
            "is not pinned, so what runs would change by itself", "add a tag other than 'latest', or a digest"
        )
    return value


def _service_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise refuse(
            f"is no URL ({error})", "write for example 'https://manager.example/v1/osb/7'"
        ) from error
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise refuse("is no http(s) URL", "write for example 'https://manager.example/v1/osb/7'")
    if parts.username or parts.password:
        raise refuse("carries credentials", "put them into a Secret and name it in `secret`")
    if parts.query or parts.fragment:
        raise refuse("has a query or a fragment, which no call could keep", "remove it")
    return value


def _text(value: str) -> str:
    if not value.strip():
        raise refuse("is empty", "write it, or leave the key out")
    return value


def _nonempty(value: tuple[T, ...]) -> tuple[T, ...]:
    if not value:
        raise refuse("is empty", "name at least one item")
    return value


def _labels(value: dict[str, str]) -> dict[str, str]:
    if not value:
        raise refuse(
            "is empty, which would bind every server to every gateway of the mesh",
            "name at least one pod label",
        )
    return _node_labels(value)


def _node_labels(value: dict[str, str]) -> dict[str, str]:
    for key, text in value.items():
        if not _is_qualified(key):
            raise refuse(
                f"has the key {key!r}, which is no Kubernetes label key", "write for example 'istio'"
            )
        if text and not LABEL_TEXT.fullmatch(text):
            raise refuse(
                f"has the value {text!r}, which is no Kubernetes label value",
                "use at most 63 letters, digits, '-', '_' and '.'",
            )
    return value


def _annotations(value: dict[str, str]) -> dict[str, str]:
    for key in value:
        if not _is_qualified(key.lower()):
            raise refuse(
                f"has the key {key!r}, which is no key of a Kubernetes annotation",
                "write for example 'proxy.istio.io/config'",
            )
    return value


def _is_qualified(key: str) -> bool:
    """Whether `key` is a name, or one behind a DNS name and '/', as Kubernetes' labels and annotations have."""
    prefix, slash, name = key.rpartition("/")
    return LABEL_TEXT.fullmatch(name) is not None and (not slash or SUBDOMAIN.fullmatch(prefix) is not None)


def _load_balancer_class(value: str) -> str:
    if not _is_qualified(value):
        raise refuse("is no class of load balancers", "write for example 'service.k8s.aws/nlb'")
    return value


def _listener(value: int) -> int:
    if _port(value) in RESERVED_PORTS:
        raise refuse(
            f"is a port on which the proxy itself listens ({', '.join(map(str, RESERVED_PORTS))})",
            "choose another port",
        )
    return value


def _trust_domain(value: str) -> str:
    if len(value) > MAX_HOST or not TRUST_DOMAIN.fullmatch(value):
        raise refuse(
            "is no SPIFFE trust domain: lower-case letters, digits, '.', '-' and '_'",
            "write meshConfig.trustDomain as it is, without 'spiffe://'",
        )
    return value


def _matching(pattern: str, what: str, example: str) -> AfterValidator:
    """The check of an identifier that AWS hands out."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if not compiled.fullmatch(value):
            raise refuse(f"is no {what}", f"write for example {example!r}")
        return value

    return AfterValidator(check)


def _hosted_zone(value: str) -> str:
    return value if HOSTED_ZONE_ID.fullmatch(value) else _host(value)


def _between(low: int, high: int, unit: str) -> AfterValidator:
    def check(value: int) -> int:
        if not low <= value <= high:
            raise refuse(f"is out of range: {low} to {high} {unit}", "choose a number in that range")
        return value

    return AfterValidator(check)


Label = Annotated[str, AfterValidator(_label)]
Text = Annotated[str, AfterValidator(_text)]
ServiceName = Annotated[str, AfterValidator(_service_name)]
Subdomain = Annotated[str, AfterValidator(_subdomain)]
Host = Annotated[str, AfterValidator(_host)]
Identity = Annotated[str, AfterValidator(_identity)]
Port = Annotated[int, AfterValidator(_port)]
Listener = Annotated[int, AfterValidator(_listener)]
TrustDomain = Annotated[str, AfterValidator(_trust_domain)]
Address = Annotated[str, AfterValidator(_address)]
Ip = Annotated[str, AfterValidator(_ip)]
Cidr = Annotated[str, AfterValidator(_cidr)]
Duration = Annotated[str, AfterValidator(_duration)]
Image = Annotated[str, AfterValidator(_image)]
Cpu = Annotated[str, AfterValidator(_cpu)]
Bytes = Annotated[str, AfterValidator(_bytes)]
Positive = Annotated[int, AfterValidator(_positive)]
Percent = Annotated[int, AfterValidator(_percent)]
Certificates = Annotated[str, AfterValidator(_certificates)]
Fingerprint = Annotated[str, AfterValidator(_fingerprint)]
RevocationLists = Annotated[str, AfterValidator(_revocation_lists)]
PodLabels = Annotated[dict[str, str], AfterValidator(_labels)]
NodeLabels = Annotated[dict[str, str], AfterValidator(_node_labels)]
Annotations = Annotated[dict[str, str], AfterValidator(_annotations)]
LoadBalancerClass = Annotated[str, AfterValidator(_load_balancer_class)]
PinnedImage = Annotated[str, AfterValidator(_pinned_image)]
ServiceUrl = Annotated[str, AfterValidator(_service_url)]
NonEmpty = Annotated[tuple[T, ...], AfterValidator(_nonempty)]
WarningDays = Annotated[int, _between(1, 3650, "days")]
KeepaliveSeconds = Annotated[int, _between(1, 32_767, "seconds, as Linux has it")]
KeepaliveProbes = Annotated[int, _between(1, 127, "probes, as Linux has it")]
Ttl = Annotated[int, _between(1, 86_400, "seconds")]
DeregistrationSeconds = Annotated[int, _between(0, 3600, "seconds")]
HostedZone = Annotated[str, AfterValidator(_hosted_zone)]
Region = Annotated[str, _matching(r"[a-z]{2,}(-[a-z]+)+-[0-9]+", "AWS region", "eu-central-1")]
AccountId = Annotated[str, _matching(r"[0-9]{12}", "AWS account id: 12 digits, in quotes", "123456789012")]
SubnetId = Annotated[str, _matching(r"subnet-[0-9a-f]{8,}", "id of a subnet", "subnet-0123456789abcdef0")]
LoadBalancerArn = Annotated[
    str,
    _matching(
        r"arn:[\w-]+:elasticloadbalancing:[\w-]+:[0-9]{12}:loadbalancer/[\w/-]+",
        "ARN of a load balancer",
        "arn:aws:elasticloadbalancing:eu-central-1:123456789012:loadbalancer/net/edge/0123456789abcdef",
    ),
]
TargetGroupArn = Annotated[
    str,
    _matching(
        r"arn:[\w-]+:elasticloadbalancing:[\w-]+:[0-9]{12}:targetgroup/[\w-]+/[0-9a-f]+",
        "ARN of a target group",
        "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/edge/0123456789abcdef",
    ),
]


def seconds(duration: str) -> float:
    """A Duration in seconds."""
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    digits = duration.rstrip("msh")
    return int(digits) * units[duration.removeprefix(digits)]


def quantity(text: str) -> float:
    """Cpu or Bytes as a number."""
    digits = text.rstrip("mkKMGi")
    return float(digits) * UNITS[text.removeprefix(digits)]


def url_port(url: str) -> int:
    """The port of a ServiceUrl."""
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def is_below(host: str, domain: str) -> bool:
    """Whether `host` lies below `domain`, so that the wildcard record `*.domain` resolves it."""
    return host.endswith(f".{domain}")


def is_hosted_zone_id(zone: str) -> bool:
    """Whether `zone` is the id of a Route 53 hosted zone rather than its name."""
    return HOSTED_ZONE_ID.fullmatch(zone) is not None


def is_auto_allocated(address: str) -> bool:
    """Whether `address` lies in the range from which Istio allocates virtual IPs by itself."""
    return ipaddress.ip_address(address) in AUTO_ALLOCATED
