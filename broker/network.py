"""`network_data`: what two proxies tell each other about a binding's endpoints, and how the endpoints are called.

Request of the consumer: `{network_profile_id, data: {consumer_id}}`. Answer of the provider: `{network_profile_id,
data: {provider_id, endpoints: [{host, port}, …]}}`, one public endpoint for each port of the answer's `endpoints`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from broker.documents import Document, Json, child
from broker.errors import BadRequestError, BrokerError, OsbError, UpstreamError
from config.types import Address, Host, Identity, Port, is_below

NETWORK_DATA = "network_data"
PROFILES = "network_profiles"
MAX_ENDPOINTS = 128
"""Routes that a binding gets at most: each is about ten objects, and an upstream is another organisation's."""
MAX_LABEL = 44
"""Longest binding id that names objects itself: `import-<index>-<id>` has at most 63 characters."""

_LABEL = re.compile(r"(?!h[0-9a-f]{43}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?")
"""Ids that name objects themselves: DNS labels, but for those that another id's digest could be."""


def _number(value: object) -> object:
    """A port as number, however it was written."""
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


class Endpoint(BaseModel):
    """Where something listens. `host`: IP address or DNS name; `port`: number, or text of digits."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: Address
    port: Annotated[Port, BeforeValidator(_number)]


def _single(value: object) -> object:
    """One port as a list of one; a range of ports is refused."""
    ports = value if isinstance(value, list) else [value]
    if any(isinstance(port, str) and "-" in port for port in ports):
        raise ValueError(
            f"{ports!r} holds a range; each port gets a route of its own, so the broker must list the ports"
        )
    return ports


class _Offer(BaseModel):
    """An endpoint as a broker writes it: `{host, ports: ["443"], protocol}` (OSB "Endpoint Object") or `{host, port}`. Of
    the protocol `all`, TCP is routed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: Address
    ports: Annotated[
        tuple[Annotated[Port, BeforeValidator(_number)], ...],
        BeforeValidator(_single),
        Field(min_length=1, validation_alias=AliasChoices("ports", "port")),
    ]
    protocol: Literal["tcp", "all"] = "tcp"


class PublicEndpoint(BaseModel):
    """A provider's public endpoint; the host is the SNI."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: Host
    port: Annotated[Port, BeforeValidator(_number)]


class ProviderData(BaseModel):
    """What a provider says of a binding's endpoints."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    provider_id: Identity
    endpoints: tuple[PublicEndpoint, ...]


_offers = TypeAdapter(tuple[_Offer, ...])
_identity = TypeAdapter[str](Identity)


def label(binding_id: str) -> str:
    """The DNS label that stands for a binding in the names of objects and public hosts: its id, where that is one."""
    if len(binding_id) <= MAX_LABEL and _LABEL.fullmatch(binding_id):
        return binding_id
    return "h" + hashlib.sha256(binding_id.encode("utf-8", "surrogatepass")).hexdigest()[: MAX_LABEL - 1]


def slug(binding_id: str, index: int) -> str:
    """The slug of one endpoint of a binding."""
    return f"{index}-{label(binding_id)}"


def is_slug_of(text: str, binding_id: str) -> bool:
    """Whether this is the slug of an endpoint of the binding."""
    index, _, rest = text.partition("-")
    return index.isdigit() and rest == label(binding_id)


def public_host(binding_id: str, index: int, system_domain: str) -> str:
    """The public host of one endpoint of a binding."""
    return f"{index}.{label(binding_id)}.{system_domain}"


def own_profile(document: Mapping[str, Json], profile: str) -> bool:
    """Whether the document's network data is of this profile."""
    return child(document, NETWORK_DATA, "network_profile_id") == profile


def consumer_id(request: Mapping[str, Json]) -> str:
    """The consumer that a bind request is for. Raises BadRequestError: without one the check of its name would be off."""
    found = child(request, NETWORK_DATA, "data", "consumer_id")
    if not isinstance(found, str) or not found.strip():
        raise BadRequestError("no consumer ID included in bind request", "InvalidConsumerID")
    try:
        return _identity.validate_python(found)
    except ValidationError as error:
        raise BadRequestError(
            f"network_data.data.consumer_id: {_first(error)}", "InvalidConsumerID"
        ) from None


def take_endpoints(answer: Document) -> tuple[Endpoint, ...]:
    """The endpoints of a bind answer: its `endpoints`, or `credentials.end_points`, which move to `endpoints`.

    Raises UpstreamError for endpoints that are none.
    """
    found = answer.get("endpoints")
    credentials = answer.get("credentials")
    if isinstance(credentials, dict) and "end_points" in credentials:
        moved = credentials.pop("end_points")
        if found is None:
            found = answer["endpoints"] = moved
    return read_endpoints(found)


def read_endpoints(found: Json) -> tuple[Endpoint, ...]:
    """One endpoint for each port of what a broker wrote, in its order. Raises UpstreamError, which names what is wrong but
    quotes no credentials."""
    if found is None:
        return ()
    try:
        offers = _offers.validate_python(found)
    except ValidationError as error:
        raise UpstreamError(f"the upstream's answer has wrong endpoints: {_first(error)}") from None
    endpoints = tuple(Endpoint(host=offer.host, port=port) for offer in offers for port in offer.ports)
    if len(endpoints) > MAX_ENDPOINTS:
        raise UpstreamError(
            f"the upstream's answer has {len(endpoints)} endpoints; a binding gets {MAX_ENDPOINTS} routes at most"
        )
    return endpoints


def written_like(found: Json, endpoints: Sequence[Json]) -> list[Json]:
    """Endpoints `{host, port}` as the broker wrote its own: as OSB's Endpoint Objects, where the first of those is one."""
    first = found[0] if isinstance(found, list) and found else None
    if not isinstance(first, dict) or "ports" not in first:
        return list(endpoints)
    return [
        {"host": e["host"], "ports": [str(e["port"])], "protocol": "tcp"} if isinstance(e, dict) else e
        for e in endpoints
    ]


def provider_data(answer: Mapping[str, Json]) -> ProviderData:
    """What the provider's proxy says. Raises UpstreamError for what no provider may say."""
    try:
        return ProviderData.model_validate(child(answer, NETWORK_DATA, "data"))
    except ValidationError as error:
        raise UpstreamError(f"the provider's network_data is wrong: {_first(error)}") from None


def check_hosts(data: ProviderData, domains: Sequence[str]) -> None:
    """A provider may only send its consumers to hosts below its own domain. Raises UpstreamError."""
    for endpoint in data.endpoints:
        if domains and not any(is_below(endpoint.host, domain) for domain in domains):
            raise UpstreamError(
                f"the provider's endpoint {endpoint.host} is below none of the domains that this consumer trusts "
                f"({', '.join(domains)}); correct the provider or add its domain to `consumer.system_domains`"
            )


def refuse_profiles(request: Mapping[str, Json]) -> None:
    """Consumer, provision: nobody before it may have chosen a profile."""
    if request.get(PROFILES) not in (None, []):
        raise BadRequestError(
            "network_profiles must not be in the request: this proxy adds its own", "InvalidNetworkProfile"
        )


def demand_profile(document: Mapping[str, Json], profile: str, error: type[OsbError], code: str) -> None:
    """The document must hold this profile and no other."""
    found = document.get(PROFILES)
    ids = (
        [item.get("id") if isinstance(item, dict) else None for item in found]
        if isinstance(found, list)
        else []
    )
    if ids != [profile]:
        raise error(f"network_profiles must hold exactly {profile!r}, it holds {ids!r}", code)


def refuse_server_profiles(answer: Mapping[str, Json]) -> None:
    """Provider, provision: the broker behind it knows no profiles."""
    if answer.get(PROFILES) not in (None, []):
        raise BrokerError(
            "the broker answered network_profiles, which only proxies may", "InvalidServerNetworkProfile"
        )


def _first(error: ValidationError) -> str:
    found = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in found["loc"])
    return f"{where}: {found['msg']}" if where else found["msg"]
