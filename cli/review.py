"""The commands that show what would change and post it: preview, drift, comment, touched, post-preview, post-drift."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from cli import engine
from cli.comment import comment as render
from cli.comment import farewell, marker
from cli.console import OneStack, Plans, Stacks, heading, note, project_of
from cli.errors import CliError, ExitCode
from cli.github import ACTIONS, GitHub, GitHubError
from cli.plan import Plan, failed_plan, read_plan
from cli.touched import Touched, changed_files
from cli.touched import touched as touched_stacks

DRIFT = "Drift"
PREVIEW = "Preview"

AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON instead of Markdown.")]
Save = Annotated[
    Path | None, typer.Option(help="Also write each stack's summary to NAME.json in this directory.")
]
Api = Annotated[str, typer.Option(envvar="GITHUB_API_URL", help="The API's address.")]
Repository = Annotated[str, typer.Option(envvar="GITHUB_REPOSITORY", help="OWNER/NAME.")]
Token = Annotated[
    str, typer.Option(envvar="GITHUB_TOKEN", help="What to authenticate with.", show_envvar=True)
]
Author = Annotated[str, typer.Option(help="Whose comments and issues are ours.")]

GITHUB = "https://api.github.com"


def preview(context: typer.Context, stack: OneStack, as_json: AsJson = False, save: Save = None) -> None:
    """Show what `up` would change in a stack, as the pull request shows it."""
    project = project_of(context)
    (name,) = project.chosen((stack,))
    pulumi = engine.prepare(project)
    plan = _plan(pulumi, name, refresh=False)
    _save([plan], save)
    typer.echo(plan.model_dump_json(indent=2) if as_json else render(plan, title=PREVIEW), nl=as_json)
    if not plan.succeeded:
        raise typer.Exit(ExitCode.FAILED)


def drift(context: typer.Context, stacks: Stacks = None, as_json: AsJson = False, save: Save = None) -> None:
    """Compare stacks with what is really there. Exit code 0: no drift, 2: drift, 1: it could not be found out."""
    project = project_of(context)
    ordered = project.in_order(project.chosen(stacks or ()))
    pulumi = engine.prepare(project)
    plans = list[Plan]()
    for name in ordered:
        heading(f"drift: {name}")
        plans.append(_plan(pulumi, name, refresh=True))
    _save(plans, save)
    if as_json:
        typer.echo(json.dumps([plan.model_dump(mode="json") for plan in plans], indent=2))
    else:
        typer.echo("\n".join(render(plan, title=DRIFT) for plan in plans), nl=False)
    if not all(plan.succeeded for plan in plans):
        raise typer.Exit(ExitCode.FAILED)
    if any(plan.changes for plan in plans):
        raise typer.Exit(ExitCode.DRIFT)


def comment(plans: Plans, title: Annotated[str, typer.Option(help="What it is called.")] = PREVIEW) -> None:
    """Print the Markdown of previews that were saved before, or of files of `pulumi preview --json`."""
    typer.echo("\n".join(render(plan, title=title) for plan in _load(plans)), nl=False)


def touched(
    context: typer.Context,
    base: Annotated[str, typer.Option(help="The revision to compare HEAD with.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, for `post-preview --touched`.")
    ] = False,
) -> None:
    """Print the stacks that the commits since a revision touch: changed ones, then those whose file they remove."""
    project = project_of(context)
    stack_dir = project.stack_dir.relative_to(project.root).as_posix()
    found = touched_stacks(changed_files(project.root, base), project.stacks(), stack_dir)
    removed = (f"{name} (removed)" for name in found.removed)
    typer.echo(found.model_dump_json() if as_json else "\n".join((*found.changed, *removed)))


def post_preview(
    plans: Annotated[
        list[Path] | None,
        typer.Argument(help="Files written by `preview --save`, of the stacks that have one."),
    ] = None,
    *,
    touches: Annotated[
        str, typer.Option("--touched", help="The stacks to comment on, as `touched --json` prints them.")
    ],
    pull_request: Annotated[int, typer.Option(help="The pull request's number.")],
    repository: Repository,
    token: Token,
    api: Api = GITHUB,
    author: Author = ACTIONS,
) -> None:
    """Make the pull request's comments say what it does to the stacks it touches: one comment a stack, updated."""
    github = GitHub(api, token, repository, author)
    bodies = _comments(_touched(touches), {plan.stack: plan for plan in _load(plans or ())})
    try:
        for stack, body in bodies.items():
            outcome = github.comment(pull_request, marker(stack), body)
            note.print(f"{stack}: comment {outcome}")
        _retire(github, pull_request, {marker(stack) for stack in bodies})
    except GitHubError as error:
        if error.status != 403:
            raise
        note.print(f"warning: {error}\nThe previews stand in the job's summary instead.")


def _touched(text: str) -> Touched:
    try:
        return Touched.model_validate_json(text)
    except ValidationError as error:
        raise CliError(
            f"--touched {text!r} lists no stacks: {error}",
            "Pass what `python -m cli touched --json` prints.",
        ) from error


def _comments(touches: Touched, plans: Mapping[str, Plan]) -> dict[str, str]:
    """The comment on each stack. One without a plan was to be previewed, and its preview ended before it had one."""
    lost = "The preview ended before it could say anything: the log of its job says why."
    bodies = {
        stack: render(plans.get(stack) or failed_plan(stack, lost), title=PREVIEW)
        for stack in touches.changed
    }
    return {**bodies, **{stack: farewell(stack) for stack in touches.removed}}


def post_drift(
    plans: Plans, repository: Repository, token: Token, api: Api = GITHUB, author: Author = ACTIONS
) -> None:
    """Keep one issue for each stack that drifted: made, updated, and closed when the drift is gone."""
    github = GitHub(api, token, repository, author)
    for plan in _load(plans):
        mark = marker(plan.stack, DRIFT.lower())
        if plan.changes or not plan.succeeded:
            state = "drifted" if plan.succeeded else "could not be checked for drift"
            outcome = github.issue(mark, f"Stack {plan.stack} {state}", render(plan, title=DRIFT))
        else:
            outcome = github.close(mark, "The stack is again as its file says.")
        note.print(f"{plan.stack}: issue {outcome}")


def _plan(pulumi: engine.Engine, name: str, *, refresh: bool) -> Plan:
    """The plan of one stack. That it cannot be made is a finding too, which belongs into the comment."""
    try:
        pulumi.check_references(name)
        stack = pulumi.create(name) if pulumi.local is not None and not refresh else pulumi.find(name)
        if stack is None:
            return failed_plan(
                name,
                f"There is no stack {name} in the state. Deploy it (python -m cli up {name}), or make it empty (pulumi stack"
                f" init {name}).",
            )
        raw, succeeded = stack.preview(refresh=refresh)
        return read_plan(name, raw, succeeded=succeeded)
    except CliError as error:
        if error.code == ExitCode.INTERRUPTED:
            raise
        return failed_plan(name, str(error))


def _retire(github: GitHub, number: int, current: set[str]) -> None:
    """Say so in our comments on stacks that the pull request does not touch any more."""
    for post in github.comments(number):
        mark = (post.body or "").partition("\n")[0].strip()
        if mark.startswith("<!-- meshbridge-preview:") and mark not in current:
            github.comment(number, mark, f"{mark}\n\nThis pull request does not touch the stack any more.\n")


def _save(plans: Iterable[Plan], directory: Path | None) -> None:
    if directory is None:
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for plan in plans:
            (directory / f"{plan.stack}.json").write_text(plan.model_dump_json(indent=2), encoding="utf-8")
    except OSError as error:
        raise CliError(f"--save {directory}: {error}.", "Name a directory that can be written.") from error


def _load(files: Iterable[Path]) -> list[Plan]:
    return sorted((_load_one(file) for file in files), key=lambda plan: plan.stack)


def _load_one(file: Path) -> Plan:
    """A plan that we saved, or what `pulumi preview --json > STACK.json` wrote."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict) and "format" not in content:
            return read_plan(file.stem, content, succeeded=True)
        return Plan.model_validate(content)
    except (OSError, ValueError, RecursionError, ValidationError) as error:
        raise CliError(
            f"{file} is not a preview: {error}", "Write it with `python -m cli preview --save`."
        ) from error
