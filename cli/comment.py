"""A plan as the Markdown of its pull request comment. Pure: the same plan is the same text.

What matters most comes first and is cut last: errors, then what traffic is cut, then the objects, then their
properties. GitHub refuses a body of more than 65,536 characters, so the text stays below `LIMIT` and says what it left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from cli.markdown import block, code
from cli.plan import COUNTED, Diagnostic, Operation, Plan, Property, Resource

LIMIT = 64_000
MESSAGE_LENGTH = 4_000
MESSAGES_ROOM = 18_000  # bytes for the errors, and for the warnings
CUTS_ROOM = 16_000
LOCALLY = "`make preview STACK=…` shows everything."
RESERVE = 300  # bytes for each of the two notes of what was left out

VERBS: dict[Operation, str] = {
    "create": "to create",
    "update": "to update",
    "replace": "to **replace**",
    "delete": "to **delete**",
    "import": "to import",
    "forget": "to forget",
}
SIGNS: dict[Operation, str] = {
    "create": "🆕",
    "update": "✏️",
    "replace": "♻️",
    "delete": "❌",
    "import": "📥",
    "forget": "💤",
}


def marker(stack: str, purpose: str = "preview") -> str:
    """The hidden line by which a comment is found again."""
    return f"<!-- meshbridge-{purpose}:{stack} -->"


def comment(plan: Plan, *, title: str = "Preview", limit: int = LIMIT) -> str:
    """The comment for one stack, at most `limit` bytes in UTF-8 (and so never more characters)."""
    head = "\n\n".join(_head(plan, title))
    body = _body(plan.resources, limit - _size(head) - 2 * RESERVE)
    return "\n\n".join([head, *body]) + "\n"


def farewell(stack: str) -> str:
    """The comment for a stack whose file is removed: nothing of what it has deployed goes with the file."""
    name = code(stack)
    return (
        f"{marker(stack)}\n\n## Preview of {name}: its file is removed\n\n"
        f"What {name} has deployed stays, and nothing looks after it any more. Where it is to go, run "
        f"{code(f'make down STACKS={stack}')} while the file is still there.\n"
    )


def _head(plan: Plan, title: str) -> Iterator[str]:
    counts = [f"{number} {VERBS[op]}" for op in COUNTED if (number := plan.count(op))]
    tail = f"{plan.unchanged} unchanged"
    yield marker(plan.stack, title.lower())
    yield (
        f"## {title} of {code(plan.stack)}: {', '.join([*counts, tail])}"
        if plan.succeeded
        else (f"## {title} of {code(plan.stack)}: failed")
    )
    if not plan.succeeded:
        yield "> [!CAUTION]\n> The preview did not succeed; what follows it is incomplete."
    yield from _messages([d for d in plan.diagnostics if d.severity == "error"])
    yield from _warnings(
        [r for r in plan.resources if r.operation in ("replace", "delete") or r.interruption is not None]
    )
    yield from _messages([d for d in plan.diagnostics if d.severity != "error"])
    if plan.succeeded and not plan.resources:
        yield "Nothing changes."


def _messages(diagnostics: Sequence[Diagnostic]) -> Iterator[str]:
    shown = list[str]()
    for diagnostic in diagnostics:
        where = f" at {code(diagnostic.resource)}" if diagnostic.resource else ""
        level = "Error" if diagnostic.severity == "error" else "Warning"
        shown.append(f"**{level}**{where}:\n\n{block(diagnostic.message, MESSAGE_LENGTH)}")
    yield from _fitting(shown, MESSAGES_ROOM, "_… and {} more messages._")


def _warnings(resources: Sequence[Resource]) -> Iterator[str]:
    """The objects that go away, and those whose change clients notice; those that traffic depends on first."""
    lines = list[str]()
    for resource in sorted(resources, key=lambda r: (r.interruption is None, r.cut is None, r.is_component)):
        what = {"replace": "replaced", "update": "changed"}.get(resource.operation, "deleted")
        stays = resource.operation == "replace" and resource.formerly is None
        until = " until the new one is in place" if stays else ""
        cut = f": {code(resource.cut)}{until}" if resource.cut else ""
        if resource.interruption is not None:
            cut = f": {code(resource.interruption, MESSAGE_LENGTH)}"
        lines.append(f"> - {_title(resource)} is **{what}**{cut}")
    if lines:
        yield "\n".join(["> [!WARNING]", *_fitting(lines, CUTS_ROOM, "> - … and {} more, below")])


def _fitting(parts: Sequence[str], room: int, rest: str) -> Iterator[str]:
    """The first `parts` that fit into `room` bytes, and how many do not."""
    for number, part in enumerate(parts):
        room -= _size(part) + 2
        if room < 0:
            yield rest.format(len(parts) - number)
            return
        yield part


def _title(resource: Resource) -> str:
    before = f"{code(resource.formerly)} → " if resource.formerly is not None else ""
    return f"{code(resource.kind)} {before}{code(resource.name)}"


def _body(resources: Sequence[Resource], room: int) -> Iterator[str]:
    """The objects by component, as many as there is room for; then their properties, likewise."""
    lines = dict[str, str]()
    for resource in resources:
        line = _line(resource)
        room -= _size(line) + _size(_heading(resource.component)) + 4
        if room < 0:
            break
        lines[resource.urn] = line
    changed = [r for r in resources if r.urn in lines and r.operation in ("update", "replace")]
    unshown = 0
    for resource in changed:
        text = _details(resource) if room > RESERVE else None
        if text is None or _size(text) + 2 > room:
            unshown += 1
        else:
            lines[resource.urn] += f"\n{text}"
            room -= _size(text) + 2
    for component, members in groupby(resources[: len(lines)], key=lambda resource: resource.component):
        yield _heading(component) + "\n\n" + "\n".join(lines[member.urn] for member in members)
    if len(lines) < len(resources):
        yield f"_{len(resources) - len(lines)} more objects change; there is no room for them here._ {LOCALLY}"
    if unshown:
        yield f"_The properties of {unshown} objects are left out for lack of room._ {LOCALLY}"


def _heading(component: str) -> str:
    return f"### {code(component)}" if component else "### Without a component"


def _line(resource: Resource) -> str:
    component = " (the component)" if resource.is_component else ""
    return f"- {SIGNS[resource.operation]} {resource.operation} {_title(resource)}{component}"


def _details(resource: Resource) -> str:
    """The collapsible table of what changes in an object, indented to belong to its list item."""
    if not resource.properties:
        return (
            "  The inputs that can be shown are equal: what differs is a secret or a default of the provider."
        )
    count = len(resource.properties)
    lines = [
        f"  <details><summary>{count} propert{'y' if count == 1 else 'ies'}</summary>",
        "",
        "  | Property | Old | New |",
        "  |---|---|---|",
        *(
            f"  | {_path(change)} | {_value(change.old)} | {_value(change.new)} |"
            for change in resource.properties
        ),
        "",
        "  </details>",
        "",
    ]
    return "\n".join(lines)


def _path(change: Property) -> str:
    return code(change.path) + (" ⚠️ forces the replacement" if change.replaces else "")


def _value(text: str | None) -> str:
    return "(none)" if text is None else code(text)


def _size(text: str) -> int:
    return len(text.encode("utf-8", errors="replace"))
