"""What the soak calls wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import pytest

from bench.bindings import of_binding
from bench.soak import _compared, _section
from broker.network import Endpoint, PublicEndpoint
from broker.settings import ConsumerSettings, ProviderSettings, Settings
from broker.store import ConsumerRoute, ProviderRoute


@pytest.mark.parametrize(
    ("there", "expected", "wrong"),
    [
        (["a", "b"], {"a", "b"}, []),
        (["a", "b"], {"a"}, ["orphan: b of rows"]),
        (["a"], {"a", "b"}, ["lost: b of rows"]),
        ({"a": {"plan_id": "p"}}, {"a"}, []),
        (["a", "a"], {"a"}, ["duplicate: a of rows"]),
        (["b"], {"a"}, ["orphan: b of rows", "lost: a of rows"]),
    ],
)
def test_things_are_compared_by_name_not_by_number(
    there: Collection[str], expected: set[str], wrong: list[str]
) -> None:
    assert list(_compared("rows", there, expected)) == wrong


def test_the_result_says_what_was_killed_and_what_was_wrong() -> None:
    hit = Counter({("consumer's broker", "bind"): 2, ("provider's engine", "unbind"): 1})

    good = _section(hit, 4, [], (7, 120.0))
    bad = _section(hit, 4, ["after the crashes: orphan: x of y"], (7, 120.0))

    assert good.rows == [["consumer's broker", "2", "0"], ["provider's engine", "0", "1"]]
    assert "3 crashes" in good.text
    assert "seed 7" in good.text
    assert "orphan: **0**, lost: **0**, duplicate: **0**" in good.verdict
    assert good.verdict.endswith("met.")
    assert "orphan: **1**" in bad.verdict
    assert bad.verdict.endswith("missed.")


def test_a_binding_has_twelve_objects_and_their_names_are_its_own() -> None:
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
    public = PublicEndpoint(host="0.x.istio.data.example", port=9000)
    consumer = ConsumerRoute(namespace="shop", provider_id="istio.data.example", endpoints=(public,))
    provider = ProviderRoute(consumer_id="a.example", endpoints=(Endpoint(host="10.0.0.1", port=5432),))

    names = [
        {(manifest.kind, manifest.namespace, manifest.name) for manifest in of_binding(read, "x", route)}
        for route in (consumer, provider)
    ]

    assert [len(found) for found in names] == [8, 4]
    assert all("0-x" in str(name) for found in names for _, _, name in found)
