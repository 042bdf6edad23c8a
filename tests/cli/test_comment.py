"""The comment: what the real engine wrote becomes what a reviewer needs, within GitHub's limit, every time the same."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from pydantic import JsonValue

from cli.app import main
from cli.comment import LIMIT, comment, marker
from cli.errors import CliError
from cli.plan import Diagnostic, Plan, Property, Resource, failed_plan, read_plan

DATA = Path(__file__).parent / "data"


def captured(name: str) -> JsonValue:
    """What `pulumi preview --json` of the real engine wrote (without its stack traces)."""
    content: JsonValue = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    return content


def plan_of(name: str, *, succeeded: bool = True) -> Plan:
    return read_plan("example-consumer", captured(name), succeeded=succeeded)


def step(op: str, kind: str = "ServiceEntry", **fields: JsonValue) -> dict[str, JsonValue]:
    name = str(fields.pop("name", "orders"))
    type_token = f"kubernetes:networking.istio.io/v1:{kind}"
    inputs: JsonValue = {
        "kind": kind,
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {"hosts": [f"{name}.example"]},
    }
    state: JsonValue = {
        "type": type_token,
        "custom": True,
        "inputs": inputs,
        "parent": "urn:pulumi:s::meshbridge::meshbridge:index:ConsumerEgress::orders",
        **({"retainOnDelete": True} if fields.pop("retain", False) else {}),
    }
    sides: dict[str, JsonValue] = {}
    if op != "create":
        sides["oldState"] = state
    if op != "delete":
        sides["newState"] = state
    return {"op": op, "urn": f"urn:pulumi:s::meshbridge::{type_token}::{name}", **sides, **fields}


def rendered(*steps: JsonValue, **preview: JsonValue) -> str:
    return comment(read_plan("s", {"steps": list(steps), **preview}, succeeded=True))


def test_a_real_change() -> None:
    text = comment(plan_of("change"))
    assert text.startswith("<!-- meshbridge-preview:example-consumer -->\n")
    assert "5 to update, 3 to **replace**, 9 to **delete**, 23 unchanged" in text
    assert "<code>connections to replica.orders.istio.data.example find no way out</code>" in text
    assert "| <code>spec.ports[0].port</code> | <code>5432</code> | <code>5433</code> |" in text
    assert "| <code>metadata.namespace</code> ⚠️ forces the replacement | <code>notify</code> |" in text
    assert "<code>notify/svc-queue-main</code> → <code>alerts/svc-queue-main</code>" in text
    assert text.index("[!WARNING]") < text.index("### <code>ConsumerEgress orders-primary</code>")


def test_a_real_refusal_says_why_first() -> None:
    plan = plan_of("refused", succeeded=False)
    text = comment(plan)
    assert "failed" in text.splitlines()[2]
    assert "70000 is out of range" in text
    assert "program exited with non-zero exit code" not in text
    assert not plan.succeeded


def test_a_real_secret_and_a_real_unknown_value() -> None:
    text = comment(plan_of("secret"))
    assert "[computed]" in text
    assert "__provider" not in text
    assert "04da6b54" not in text


def test_a_secret_that_changes_is_said_to_change() -> None:
    changed = step("update", diffReasons=["pw"])
    for side in ("oldState", "newState"):
        state = changed[side]
        assert isinstance(state, dict)
        changed[side] = {**state, "inputs": {"pw": "[secret]"}, "outputs": {"pw": "[secret]"}}
    assert "| <code>pw</code> | <code>[secret]</code> | <code>[secret]</code> |" in rendered(changed)


def test_an_update_without_a_visible_difference_says_so() -> None:
    assert "a secret or a default of the provider" in rendered(step("update"))


def test_drift_that_only_the_provider_sees() -> None:
    drifted = step(
        "update", detailedDiff={"spec.hosts[0]": {"kind": "update", "inputDiff": False}, "status": {}}
    )
    state = drifted["oldState"]
    assert isinstance(state, dict)
    drifted["oldState"] = {**state, "outputs": {"spec": {"hosts": ["by-hand.example"]}, "status": "broken"}}
    assert "| <code>status</code> | <code>broken</code> | (none) |" in rendered(drifted)
    assert (
        "| <code>spec.hosts[0]</code> | <code>by-hand.example</code> | <code>orders.example</code> |"
        in rendered(drifted)
    )


@pytest.mark.parametrize("op", ["create-replacement", "delete-replaced", "replace"])
def test_the_parts_of_a_replacement_are_a_replacement(op: str) -> None:
    text = rendered(step(op))
    assert "1 to **replace**" in text
    assert "until the new one is in place" in text


def test_a_replacement_in_parts_is_counted_once() -> None:
    assert "1 to **replace**, 0 unchanged" in rendered(step("create-replacement"), step("delete-replaced"))


def test_what_is_kept_in_the_cluster_is_not_called_deleted() -> None:
    text = rendered(step("delete", retain=True))
    assert "1 to forget" in text
    assert "[!WARNING]" not in text


@pytest.mark.parametrize("op", ["same", "read", "refresh"])
def test_what_changes_nothing_is_not_listed(op: str) -> None:
    assert "Nothing changes." in rendered(step(op))


def test_the_plugin_itself_is_no_object() -> None:
    provider = step("create")
    provider["newState"] = {"type": "pulumi:providers:kubernetes", "custom": True}
    assert "Nothing changes." in rendered(provider)


def test_components_are_headings_and_objects_their_members() -> None:
    component: JsonValue = {
        "op": "create",
        "urn": "urn:pulumi:s::meshbridge::meshbridge:index:ConsumerEgress::orders",
        "newState": {"type": "meshbridge:index:ConsumerEgress", "custom": False},
    }
    lines = rendered(step("create"), component).splitlines()
    at = lines.index("### <code>ConsumerEgress orders</code>")
    assert lines[at + 2].endswith("(the component)")
    assert "<code>ServiceEntry</code> <code>shop/orders</code>" in lines[at + 3]


def test_the_order_of_the_steps_and_messages_does_not_matter() -> None:
    steps = [step("create", name=f"n{number}") for number in range(20)]
    messages: list[JsonValue] = [{"severity": "warning", "message": f"m{number}"} for number in range(4)]
    shuffled = random.Random(7)  # noqa: S311 - an order, not a secret
    texts = set()
    for _ in range(5):
        shuffled.shuffle(steps)
        shuffled.shuffle(messages)
        texts.add(rendered(*steps, diagnostics=list(messages)))
    assert len(texts) == 1


def test_where_a_plugin_lies_is_not_the_reviewers_business() -> None:
    told: JsonValue = {
        "severity": "warning",
        "message": "using pulumi-resource-kubernetes from $PATH at /home/me/x\n",
    }
    assert "/home/me" not in rendered(diagnostics=[told])


def test_errors_and_tracebacks_are_shown_only_of_a_failure() -> None:
    stderr: JsonValue = {"severity": "info#err", "message": "a library's chatter"}
    assert "chatter" not in rendered(diagnostics=[{"severity": "info", "message": "hello"}])
    failed = read_plan("s", {"diagnostics": [stderr]}, succeeded=False)
    assert "chatter" in comment(failed)


def test_a_plan_survives_its_journey_as_json() -> None:
    plan = plan_of("change")
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_what_is_not_a_preview_is_refused() -> None:
    with pytest.raises(CliError, match="not what Pulumi 3 writes"):
        read_plan("s", {"steps": 1}, succeeded=True)


def test_a_file_that_is_nested_too_deep_is_no_preview(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "deep.json"
    file.write_text("[" * 100_000)
    assert main(["comment", str(file)]) == 1
    assert "deep.json is not a preview" in capsys.readouterr().err


@pytest.mark.parametrize("stack", ["a -->", "", "a\nb", "<b>"])
def test_a_stack_name_cannot_leave_the_marker(stack: str) -> None:
    with pytest.raises(ValueError, match="stack"):
        Plan(stack=stack, succeeded=True, unchanged=0, resources=(), diagnostics=())


def test_a_failure_before_the_preview_is_a_comment_too() -> None:
    text = comment(failed_plan("s", "There is no stack s"), title="Drift")
    assert text.startswith(marker("s", "drift"))
    assert "There is no stack s" in text


def resource(number: int, properties: int, size: int) -> Resource:
    return Resource(
        urn=f"urn:{number}",
        kind="Gateway",
        name=f"shop/{number}",
        component=f"ConsumerEgress {number // 3:03}",
        is_component=False,
        operation="update" if properties else "delete",
        cut=None if properties else "x" * size,
        properties=tuple(
            Property(path=f"p[{i}]", old="ä" * size, new="`|" * size) for i in range(properties)
        ),
    )


sizes = st.integers(0, 400)
plans = st.builds(
    Plan,
    stack=st.just("s"),
    succeeded=st.booleans(),
    unchanged=st.integers(0, 1000),
    resources=st.integers(0, 400).flatmap(
        lambda count: st.tuples(st.integers(0, 30), sizes).map(
            lambda shape: tuple(resource(n, shape[0] if n % 2 else 0, shape[1]) for n in range(count))
        )
    ),
    diagnostics=st.lists(
        st.builds(
            Diagnostic, severity=st.sampled_from(["error", "warning"]), resource=st.text(), message=st.text()
        ),
        max_size=8,
    ).map(tuple),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plans)
def test_github_accepts_the_length(plan: Plan) -> None:
    text = comment(plan)
    assert len(text.encode("utf-8", errors="replace")) <= LIMIT < 65_536
    listed = sum(line.startswith("- ") for line in text.splitlines())
    unlisted = len(plan.resources) - listed
    assert (f"_{unlisted} more objects change" in text) == (unlisted > 0)


def test_messages_of_any_length_leave_room_for_the_objects() -> None:
    huge: list[JsonValue] = [{"severity": "error", "message": f"{n} " + "\u202e`" * 60_000} for n in range(9)]
    text = rendered(step("delete"), diagnostics=huge)
    assert len(text.encode()) <= LIMIT
    assert "more messages" in text
    assert "- ❌ delete" in text


def test_properties_go_before_objects() -> None:
    many = tuple(resource(n, 12, 300) for n in range(50))
    text = comment(Plan(stack="s", succeeded=True, unchanged=0, resources=many, diagnostics=()))
    assert sum(line.startswith("- ✏️") for line in text.splitlines()) == 50
    assert "The properties of" in text


def test_a_value_cannot_break_out_of_its_table() -> None:
    nasty = "x` | </code></details>\n\n# @octocat <!-- meshbridge-preview:other -->"
    change = Property(path=nasty, old=nasty, new=nasty)
    evil = resource(1, 1, 1).model_copy(
        update={"name": nasty, "properties": (change,), "component": nasty, "interruption": nasty}
    )
    text = comment(Plan(stack="s", succeeded=True, unchanged=0, resources=(evil,), diagnostics=()))
    assert text.count("<!--") == 1
    assert "@octocat" not in text
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    assert [token.tag for token in tokens if token.type == "heading_open"] == ["h2", "h3"]
    rows = [token for token in tokens if token.type == "tr_open"]
    assert len(rows) == 2
