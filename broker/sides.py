"""What the consumer's and the provider's proxies each add to the calls that pass: pure but for `complete` of the consumer,
which asks the provider to adapt the credentials.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Protocol

from broker import adaption, catalog, network
from broker.documents import Document, Json, child
from broker.errors import BadRequestError, BrokerError, CredentialsError, UpstreamError
from broker.settings import ConsumerSettings, ProviderSettings, Settings
from broker.store import Binding, ConsumerRoute, ProviderRoute
from broker.upstream import Call, Upstream

KUBERNETES = "kubernetes"
NO_SUCH_CALL = {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}


class Side(Protocol):
    """One side of the chain."""

    def catalog(self, answer: Document) -> Document:
        """The catalog as it goes on."""

    def provision(self, request: Document) -> Document:
        """A provision request as it goes on. Raises BadRequestError."""

    def provisioned(self, answer: Document) -> Document:
        """The answer to a provision request as it goes back. Raises BrokerError."""

    def consumer_of(self, request: Document) -> str | None:
        """Whom a bind request is for, where that matters. Raises BadRequestError."""

    def bind(self, request: Document) -> Document:
        """A bind request as it goes on. Raises BadRequestError."""

    def place(self, request: Document, predecessor: Binding | None) -> str:
        """Where a binding's route belongs: the application's namespace, or nothing. predecessor: whose successor this one
        is, if any. Raises BadRequestError."""

    def needs_route(self, answer: Document) -> bool:
        """Whether a binding of this answer can only be used with a route. Raises UpstreamError."""

    def route(self, answer: Document, binding: Binding) -> ConsumerRoute | ProviderRoute | None:
        """The route that a bound binding needs; None for none. May move members of the answer.

        Raises UpstreamError for an answer that nobody could route.
        """

    def complete(self, answer: Document, binding: Binding, call: Call) -> Document:
        """The answer as it goes back, once the route is there. Raises UpstreamError."""


def side_of(settings: Settings, upstream: Upstream) -> Side | None:
    """The side of the settings' role; None forwards everything."""
    if settings.role == "consumer" and settings.consumer is not None:
        return Consumer(settings, settings.consumer, upstream)
    if settings.role == "provider" and settings.provider is not None:
        return Provider(settings.provider, settings.network_profile)
    return None


class Provider:
    """Before the real broker: publishes the endpoints that it names."""

    def __init__(self, settings: ProviderSettings, profile: str) -> None:
        self._settings, self._profile = settings, profile

    def catalog(self, answer: Document) -> Document:
        """Marks the services."""
        metadata: dict[str, Json] = dict(self._settings.plan_metadata)  # type: ignore[arg-type]
        return catalog.mark(answer, self._settings.service_name_prefix, metadata)

    def provision(self, request: Document) -> Document:
        """Demands its own profile, which the broker does not know."""
        network.demand_profile(request, self._profile, BadRequestError, "InvalidConsumerNetworkProfile")
        return {key: value for key, value in request.items() if key != network.PROFILES}

    def provisioned(self, answer: Document) -> Document:
        """Adds its own profile."""
        network.refuse_server_profiles(answer)
        return {**answer, network.PROFILES: [{"id": self._profile}]}

    def consumer_of(self, request: Document) -> str | None:
        """The consumer's id: the name that its certificate must carry."""
        return network.consumer_id(request)

    def bind(self, request: Document) -> Document:
        """As it came."""
        return request

    def place(self, request: Document, predecessor: Binding | None) -> str:
        """The ingress gateway's namespace, whatever the request."""
        del request, predecessor
        return ""

    def needs_route(self, answer: Document) -> bool:
        """One with endpoints."""
        return bool(network.take_endpoints(answer))

    def route(self, answer: Document, binding: Binding) -> ProviderRoute | None:
        """One public host for each endpoint of the answer."""
        endpoints = network.take_endpoints(answer)
        if not endpoints:
            return None
        if binding.consumer_id is None:
            raise BrokerError(f"binding {binding.binding_id} has no consumer", "InvalidConsumerID")
        return ProviderRoute(consumer_id=binding.consumer_id, endpoints=endpoints)

    def complete(self, answer: Document, binding: Binding, call: Call) -> Document:
        """Adds the public endpoints."""
        del call
        routed = binding.route.endpoints if binding.route is not None else ()
        if network.take_endpoints(answer) != routed:
            raise UpstreamError(
                "the upstream's binding has other endpoints than its routes lead to, or in another order; bind it again"
            )
        endpoints: list[Json] = [
            {
                "host": network.public_host(binding.binding_id, index, self._settings.system_domain),
                "port": self._settings.port,
            }
            for index in range(len(routed))
        ]
        data: Json = {"provider_id": self._settings.identity, "endpoints": endpoints}
        return {**answer, network.NETWORK_DATA: {"network_profile_id": self._profile, "data": data}}


class Consumer:
    """Before the platform: gives each endpoint a virtual IP, and the application credentials that name it."""

    def __init__(self, settings: Settings, consumer: ConsumerSettings, upstream: Upstream) -> None:
        self._profile, self._consumer, self._upstream = settings.network_profile, consumer, upstream
        self._prefix, self._refuse = consumer.service_name_prefix, settings.refuse

    def catalog(self, answer: Document) -> Document:
        """Takes the provider's mark away."""
        return catalog.unmark(answer, self._prefix)

    def provision(self, request: Document) -> Document:
        """Adds its own profile, which nobody may have done before it."""
        network.refuse_profiles(request)
        return {**request, network.PROFILES: [{"id": self._profile}]}

    def provisioned(self, answer: Document) -> Document:
        """Demands its own profile back; the platform sees none."""
        network.demand_profile(answer, self._profile, BrokerError, "InvalidProducerNetworkProfile")
        return {**answer, network.PROFILES: []}

    def consumer_of(self, request: Document) -> str | None:
        """Nobody else asks here."""
        del request
        return None

    def bind(self, request: Document) -> Document:
        """Says who asks."""
        data: Json = {"network_profile_id": self._profile, "data": {"consumer_id": self._consumer.id}}
        return {**request, network.NETWORK_DATA: data}

    def place(self, request: Document, predecessor: Binding | None) -> str:
        """The namespace of a Kubernetes platform's context, where it is one of the settings'; without a context the
        predecessor's, or the first."""
        namespaces = self._consumer.namespaces
        found = child(request, "context", "namespace")
        if child(request, "context", "platform") != KUBERNETES or found is None:
            return predecessor.place if predecessor is not None else namespaces[0]
        if not isinstance(found, str) or found not in namespaces:
            raise BadRequestError(
                f"context.namespace: {found!r} is none of the namespaces that get routes here "
                f"({', '.join(namespaces)}); bind in one of them, or add it to `consumer.namespaces`",
                "InvalidNamespace",
            )
        return found

    def needs_route(self, answer: Document) -> bool:
        """One with endpoints in its own network."""
        return network.own_profile(answer, self._profile) and bool(
            network.read_endpoints(answer.get("endpoints"))
        )

    def route(self, answer: Document, binding: Binding) -> ConsumerRoute | None:
        """One virtual IP for each endpoint, towards the provider's public ones; None for a foreign network."""
        if not network.own_profile(answer, self._profile):
            return None
        data = network.provider_data(answer)
        sources = network.read_endpoints(answer.get("endpoints"))
        if len(sources) != len(data.endpoints):
            raise UpstreamError(
                f"the provider's network_data has {len(data.endpoints)} endpoints, the answer {len(sources)}: each "
                "needs its counterpart"
            )
        network.check_hosts(data, self._consumer.system_domains)
        if not sources:
            return None
        return ConsumerRoute(namespace=binding.place, provider_id=data.provider_id, endpoints=data.endpoints)

    def complete(self, answer: Document, binding: Binding, call: Call) -> Document:
        """Has the credentials adapted to the virtual IPs."""
        sources = network.read_endpoints(answer.get("endpoints"))
        targets = binding.virtual_ips or []
        if len(sources) != len(targets):
            raise UpstreamError(
                f"the answer has {len(sources)} endpoints, the binding's route {len(targets)}"
            )
        mappings: list[Json] = [
            {
                "source": {"host": source.host, "port": source.port},
                "target": {"host": target, "port": self._consumer.service_port},
            }
            for source, target in zip(sources, targets, strict=True)
        ]
        adapted = self._adapted(answer, mappings, call, binding)
        endpoints = adapted.get("endpoints")
        if isinstance(endpoints, list):
            adapted = {**adapted, "endpoints": network.written_like(answer.get("endpoints"), endpoints)}
        return adaption.merged(answer, adapted)

    def _adapted(self, answer: Document, mappings: Sequence[Json], call: Call, binding: Binding) -> Document:
        """By the provider, who knows what its credentials look like; here, where the upstream does not offer that."""
        credentials = answer.get("credentials")
        request: Document = {
            "credentials": credentials if credentials is not None else {},
            "endpoint_mappings": list(mappings),
        }
        given = self._upstream.send(adaption.call_for(call, binding, request))
        if given.status in NO_SUCH_CALL:
            return adaption.adapt(request, self._refuse)
        if given.status == HTTPStatus.UNPROCESSABLE_ENTITY:
            refused = given.document()
            if refused.get("error") == CredentialsError.default_code:
                raise CredentialsError(str(refused.get("description") or "the provider does not say why"))
        if given.status != HTTPStatus.OK:
            raise UpstreamError(f"the provider does not adapt the credentials: it answers {given.status}")
        adapted = given.document()
        if not isinstance(adapted.get("credentials"), dict):
            raise UpstreamError("the provider's adapted credentials are no JSON object")
        return adapted
