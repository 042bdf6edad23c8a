"""The recorder itself: a test that fails must fail, and what the engine refuses must be refused."""

from __future__ import annotations

import pulumi
import pytest

from tests.components.recorder import UNKNOWN, Plugin, Previewed, Registration, Secret, run


class Thing(pulumi.CustomResource):
    """A resource with one output, `spec`."""

    spec: pulumi.Output[str]

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("kubernetes:test:Thing", name, {"spec": "given", "status": None}, opts)


class Refusing(Plugin):
    """A plugin that fails."""

    def created(self, registration: Registration) -> tuple[str, dict[str, object]]:
        raise AssertionError(f"{registration.name} is refused")


def test_a_failing_assertion_in_an_apply_fails_the_run() -> None:
    def program() -> pulumi.Output[None]:
        def check(value: str) -> None:
            assert value == "something else"

        return Thing("a").spec.apply(check)

    with pytest.raises(AssertionError, match="something else"):
        run(program)


def test_a_failing_assertion_in_an_apply_that_nobody_returns_fails_the_run() -> None:
    def program() -> None:
        def check(value: str) -> None:
            assert value == "something else"

        Thing("a").spec.apply(check)

    with pytest.raises(AssertionError, match="something else"):
        run(program)


def test_a_plugin_that_fails_fails_the_run() -> None:
    with pytest.raises(AssertionError, match="a is refused"):
        run(lambda: Thing("a"), plugin=Refusing())


def test_functions_of_plugins_are_refused() -> None:
    def program() -> pulumi.Output[object]:
        return pulumi.Output.from_input(pulumi.runtime.invoke_async("kubernetes:index:something", {}))

    with pytest.raises(LookupError, match=r"kubernetes:index:something .* is not mocked"):
        run(program)


def test_a_urn_is_registered_once() -> None:
    with pytest.raises(AssertionError, match="duplicate resource URN"):
        run(lambda: [Thing("a"), Thing("a")])


def test_unknown_and_secret_values_are_recorded_as_such() -> None:
    def program() -> list[pulumi.Output[str]]:
        first = Thing("a")
        return [first.spec, pulumi.Output.secret("hidden"), pulumi.Output.from_input("plain")]

    assert run(program, plugin=Previewed(), preview=True).result == [UNKNOWN, Secret("hidden"), "plain"]
    assert run(program).result == ["given", Secret("hidden"), "plain"]


def test_runs_do_not_know_each_other() -> None:
    runs = [run(lambda: Thing("a"), stack=stack) for stack in ("one", "two")]

    assert [next(iter(r)).urn.split("::")[0] for r in runs] == ["urn:pulumi:one", "urn:pulumi:two"]
    assert all(next(iter(r)).parent.split("::")[0] == next(iter(r)).urn.split("::")[0] for r in runs)
