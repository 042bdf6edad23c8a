"""Posting: one comment for a marker, whoever else writes there, however many pages there are, whatever GitHub answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from cli.app import main
from cli.comment import marker
from cli.errors import ExitCode
from cli.github import GitHub, GitHubError
from cli.plan import Diagnostic, Plan, Resource, failed_plan
from tests.cli.github_api import ME, REPOSITORY, TOKEN, Api

MARK = marker("prod")
PULL = 7


@pytest.fixture
def github(api: Api) -> GitHub:
    return GitHub(api.url, TOKEN, REPOSITORY, ME, wait=lambda _seconds: None)


def test_the_first_comment_is_made_the_next_updates_it_and_the_same_changes_nothing(
    api: Api, github: GitHub
) -> None:
    assert github.comment(PULL, MARK, f"{MARK}\nfirst\n") == "created"
    assert github.comment(PULL, MARK, f"{MARK}\nsecond\n") == "updated"
    assert github.comment(PULL, MARK, f"{MARK}\nsecond\n") == "unchanged"
    assert api.bodies(PULL) == [f"{MARK}\nsecond\n"]


def test_it_is_found_behind_many_pages(api: Api, github: GitHub) -> None:
    for number in range(250):
        api.add_comment(PULL, f"chatter {number}", by="someone")
    api.add_comment(PULL, f"{MARK}\r\nold")
    assert github.comment(PULL, MARK, f"{MARK}\nnew") == "updated"
    assert sum(request.startswith("GET") for request in api.requests) == 3
    assert len(api.bodies(PULL)) == 251


@pytest.mark.parametrize(
    ("body", "by"),
    [
        (f"{MARK}\nnot ours", "someone"),
        (f"I quote: {MARK}", ME),
        (f"> quoted\n{MARK}", ME),
        (f"{marker('prod-2')}\nanother stack's", ME),
        (f"{marker('prod', 'drift')}\nanother purpose", ME),
    ],
)
def test_what_only_looks_like_ours_is_left_alone(api: Api, github: GitHub, body: str, by: str) -> None:
    api.add_comment(PULL, body, by=by)
    assert github.comment(PULL, MARK, f"{MARK}\nours") == "created"
    assert api.bodies(PULL) == [body, f"{MARK}\nours"]


def test_a_deleted_users_comment_is_no_problem(api: Api, github: GitHub) -> None:
    api.add_comment(PULL, f"{MARK}\nghost")["user"] = None
    assert github.comment(PULL, MARK, f"{MARK}\nours") == "created"


def test_no_permission_is_said_with_the_remedy(api: Api, github: GitHub) -> None:
    api.read_only = True
    with pytest.raises(
        GitHubError, match=r"not accessible by integration[\s\S]*pull-requests: write"
    ) as refused:
        github.comment(PULL, MARK, f"{MARK}\nx")
    assert refused.value.status == 403


def test_a_used_up_rate_limit_is_not_called_a_missing_permission(api: Api, github: GitHub) -> None:
    api.rate_limited = True
    with pytest.raises(GitHubError, match=r"rate limit exceeded[\s\S]*in 60 seconds") as refused:
        github.comment(PULL, MARK, f"{MARK}\nx")
    assert refused.value.status == 429


def test_a_body_that_is_too_long_is_refused_with_githubs_reason(api: Api, github: GitHub) -> None:
    with pytest.raises(GitHubError, match="body is too long") as refused:
        github.comment(PULL, MARK, MARK + "x" * 65_536)
    assert refused.value.status == 422


def test_a_wrong_token_and_a_wrong_repository(api: Api) -> None:
    with pytest.raises(GitHubError, match="Bad credentials"):
        GitHub(api.url, "wrong", REPOSITORY).comment(PULL, MARK, "x")
    with pytest.raises(GitHubError, match="Check the repository"):
        GitHub(api.url, TOKEN, "acme/none").comment(PULL, MARK, "x")


def test_the_token_is_not_in_its_representation(github: GitHub) -> None:
    assert TOKEN not in repr(github)


def test_github_failing_twice_is_outlasted_without_a_second_comment(api: Api, github: GitHub) -> None:
    api.failures = [502, 503]
    assert github.comment(PULL, MARK, f"{MARK}\nx") == "created"
    assert len(api.bodies(PULL)) == 1


def test_github_failing_for_long_is_an_error(api: Api, github: GitHub) -> None:
    api.failures = [502] * 9
    with pytest.raises(GitHubError, match="a proxy's page"):
        github.comment(PULL, MARK, "x")


def test_no_github_at_all_is_an_error() -> None:
    nowhere = GitHub("http://127.0.0.1:1", TOKEN, REPOSITORY, wait=lambda _seconds: None)
    with pytest.raises(GitHubError, match="Check the network"):
        nowhere.comment(PULL, MARK, "x")


def test_the_token_goes_to_no_other_host(api: Api, github: GitHub) -> None:
    api.next_host = "http://elsewhere.example"
    for number in range(101):
        api.add_comment(PULL, f"chatter {number}", by="someone")
    with pytest.raises(GitHubError, match="The token is not sent there"):
        github.comment(PULL, MARK, "x")


def test_an_answer_that_is_no_list_is_an_error(api: Api, github: GitHub) -> None:
    api.comments[PULL] = [{"id": "not a number"}]
    with pytest.raises(GitHubError, match="did not answer with a list"):
        github.comment(PULL, MARK, "x")


def plan(stack: str, *, drifted: bool = True) -> Plan:
    changed = Resource(
        urn="urn:1",
        kind="Gateway",
        name="shop/x",
        component="ConsumerEgress x",
        is_component=False,
        operation="create",
    )
    warned = Diagnostic(severity="warning", resource=None, message="careful")
    return Plan(
        stack=stack,
        succeeded=True,
        unchanged=1,
        resources=(changed,) if drifted else (),
        diagnostics=(warned,),
    )


def saved(directory: Path, *plans: Plan) -> list[str]:
    for each in plans:
        (directory / f"{each.stack}.json").write_text(each.model_dump_json())
    return [str(directory / f"{each.stack}.json") for each in plans]


@pytest.fixture
def job(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_API_URL", api.url)
    monkeypatch.setenv("GITHUB_REPOSITORY", REPOSITORY)
    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)


def post(changed: list[str], files: list[str], *, removed: Sequence[str] = ()) -> int:
    touches = json.dumps({"changed": changed, "removed": list(removed)})
    return main(["post-preview", "--pull-request", str(PULL), "--touched", touches, *files])


@pytest.mark.usefixtures("job")
def test_post_preview_keeps_one_comment_a_stack_and_retires_the_others(api: Api, tmp_path: Path) -> None:
    files = saved(tmp_path, plan("a"), plan("b"))
    assert post(["a", "b"], files) == ExitCode.OK
    assert post(["a", "b"], files) == ExitCode.OK
    assert [str(body).partition("\n")[0] for body in api.bodies(PULL)] == [marker("a"), marker("b")]
    assert post(["b"], [files[1]]) == ExitCode.OK
    first, second = api.bodies(PULL)
    assert "does not touch the stack any more" in str(first)
    assert "1 to create" in str(second)
    assert post([], []) == ExitCode.OK
    assert "does not touch the stack any more" in str(api.bodies(PULL)[1])


@pytest.mark.usefixtures("job")
def test_a_preview_that_left_nothing_is_said_to_have_failed(api: Api, tmp_path: Path) -> None:
    files = saved(tmp_path, plan("a"))
    assert post(["a"], files) == ExitCode.OK
    assert post(["a", "b"], []) == ExitCode.OK
    bodies = api.bodies(PULL)
    assert [str(body).partition("\n")[0] for body in bodies] == [marker("a"), marker("b")]
    for body in bodies:
        assert "failed" in str(body)
        assert "the log of its job says why" in str(body)
        assert "any more" not in str(body)


@pytest.mark.usefixtures("job")
def test_a_stack_whose_file_goes_gets_a_comment(api: Api, tmp_path: Path) -> None:
    assert post(["a"], saved(tmp_path, plan("a"))) == ExitCode.OK
    assert post([], [], removed=["a", "b"]) == ExitCode.OK
    for stack, body in zip(["a", "b"], api.bodies(PULL), strict=True):
        assert str(body).startswith(f"{marker(stack)}\n")
        assert "its file is removed" in str(body)
        assert f"make down STACKS={stack}" in str(body)


@pytest.mark.usefixtures("job")
@pytest.mark.parametrize("text", ["", "[]", '{"changed": ["--> <b>"], "removed": []}'])
def test_a_wrong_list_of_stacks_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["post-preview", "--pull-request", "7", "--touched", text]) == ExitCode.FAILED
    assert "touched --json" in capsys.readouterr().err


@pytest.mark.usefixtures("job")
def test_a_forks_pull_request_is_no_failure(
    api: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.read_only = True
    assert post(["a"], saved(tmp_path, plan("a"))) == ExitCode.OK
    assert "job's summary instead" in capsys.readouterr().err


@pytest.mark.usefixtures("job")
def test_a_wrong_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.json"
    file.write_text('{"format": "meshbridge-preview/1", "stack": "--> <b>"}')
    assert post(["x"], [str(file)]) == ExitCode.FAILED
    assert "is not a preview" in capsys.readouterr().err


@pytest.mark.usefixtures("job")
def test_post_drift_opens_updates_and_closes_one_issue(api: Api, tmp_path: Path) -> None:
    api.add_issue("a pull request", marker("a", "drift"), pull_request={"url": "x"})
    for number in range(120):
        api.add_issue(f"other {number}", "x", by="someone")
    (file,) = saved(tmp_path, plan("a"))
    assert main(["post-drift", file]) == ExitCode.OK
    assert main(["post-drift", file]) == ExitCode.OK
    ours = [issue for issue in api.issues if issue["title"] == "Stack a drifted"]
    assert len(ours) == 1
    saved(tmp_path, failed_plan("a", "no cluster"))
    assert main(["post-drift", file]) == ExitCode.OK
    assert "no cluster" in str(ours[0]["body"])
    assert ours[0]["title"] == "Stack a could not be checked for drift"
    saved(tmp_path, plan("a", drifted=False))
    assert main(["post-drift", file]) == ExitCode.OK
    assert ours[0]["state"] == "closed"
    assert "again as its file says" in str(api.comments)
    assert main(["post-drift", file]) == ExitCode.OK
