"""What a preview knows, in the ways in which the engine and the plugin can answer it."""

from __future__ import annotations

import pytest

from components import declare_stack
from tests.components import samples
from tests.components.recorder import (
    UNKNOWN,
    DryRun,
    Existing,
    Plugin,
    Previewed,
    Registration,
    Unanswered,
    run,
    unknown_leaves,
)

SUBNET = "spec.tcp[0].match[0].destinationSubnets[0]"
ROUTES = {f"{name}-mesh-route": [SUBNET] for name in ("orders-main", "orders-replica", "ledger")}
STACK = samples.parsed(samples.everything())


@pytest.mark.parametrize("plugin", [Previewed(), Unanswered(), DryRun()], ids=lambda p: type(p).__name__)
def test_before_the_first_up_only_the_virtual_ips_are_unknown(plugin: Plugin) -> None:
    """In a dry run the API server does name an address, but another one than the Service then gets."""
    done = run(lambda: declare_stack(STACK), plugin=plugin, preview=True)

    assert unknown_leaves(done) == ROUTES
    assert [e["vip"] for e in done.result["consumer"]["endpoints"]] == [UNKNOWN, UNKNOWN]
    assert done.result["provider"]["address"] in (UNKNOWN, None)
    known = {key: value for key, value in done.result["consumer"]["endpoints"][0].items() if key != "vip"}
    assert UNKNOWN not in known.values()


def test_a_preview_registers_what_up_then_registers() -> None:
    preview = run(lambda: declare_stack(STACK), plugin=DryRun(), preview=True)
    up = run(lambda: declare_stack(STACK))

    assert preview.registrations.keys() == up.registrations.keys()
    for urn, registration in up.registrations.items():
        assert preview.registrations[urn].dependencies == registration.dependencies
        if registration.name not in ROUTES:
            assert preview.registrations[urn].inputs == registration.inputs


def test_once_made_nothing_is_unknown() -> None:
    done = run(lambda: declare_stack(STACK), plugin=Existing(), preview=True)

    assert unknown_leaves(done) == {}
    assert [e["vip"] for e in done.result["consumer"]["endpoints"]] == ["10.96.0.7", "10.96.0.7"]


class OneMore(Existing):
    """A preview of what exists, but for one endpoint."""

    def created(self, registration: Registration) -> tuple[str, object]:  # type: ignore[override]
        identifier, state = super().created(registration)
        return ("" if "orders-replica" in registration.name else identifier), state


def test_a_new_endpoint_leaves_the_others_known() -> None:
    done = run(lambda: declare_stack(STACK), plugin=OneMore(), preview=True)

    assert unknown_leaves(done) == {"orders-replica-mesh-route": [SUBNET]}
