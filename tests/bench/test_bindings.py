"""The objects that benches apply and the soak expects: those that the broker's own program registers."""

from __future__ import annotations

import pytest

from bench.bindings import of_binding
from broker.network import Endpoint, PublicEndpoint
from broker.program import Declared, Wanted, declare, plugin_of
from broker.settings import ConsumerSettings, ProviderSettings, Settings
from broker.store import ConsumerRoute, ProviderRoute
from tests.components.recorder import run

PUBLIC = PublicEndpoint(host="0.x.istio.data.example", port=9000)


@pytest.mark.parametrize(
    ("route", "count"),
    [
        (ConsumerRoute(namespace="shop", provider_id="istio.data.example", endpoints=(PUBLIC,)), 9),
        (ProviderRoute(consumer_id="a.example", endpoints=(Endpoint(host="10.0.0.1", port=5432),)), 5),
    ],
)
def test_a_binding_has_the_objects_that_its_broker_makes_and_their_names_are_its_own(
    route: ConsumerRoute | ProviderRoute, count: int
) -> None:
    read = Settings.model_construct(
        consumer=ConsumerSettings.model_validate(
            {
                "id": "a.example",
                "namespaces": ["shop"],
                "systemDomains": ["istio.data.example"],
                "egressGateway": {"adopt": True},
            }
        ),
        provider=ProviderSettings.model_validate(
            {"systemDomain": "istio.data.example", "ingressGateway": {"adopt": True}}
        ),
        cluster=Settings.model_fields["cluster"].default,
    )

    declared = run(lambda: declare(read, plugin_of(read), [Wanted("x", 1, route)], Declared()))
    made = [r.object for r in declared.registrations.values() if "metadata" in r.inputs]
    expected = [(m.kind, m.namespace, m.name) for m in of_binding(read, "x", route)]

    assert sorted(made) == sorted(expected)
    assert len(expected) == count
    assert all("0-x" in str(name) for _, _, name in expected)
