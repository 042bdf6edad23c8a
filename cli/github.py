"""Post to GitHub: one comment or issue for each marker, updated when it is there, made when it is not.

Only what `author` wrote counts as ours: anybody may write a comment that contains a marker.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter, ValidationError

from cli.errors import CliError

ACTIONS = "github-actions[bot]"
TIMEOUT = 30.0
ATTEMPTS = 3
_next_page = re.compile(r'<([^>]+)>;\s*rel="next"')

T = TypeVar("T")
Outcome = Literal["created", "updated", "unchanged", "closed"]


class GitHubError(CliError):
    """GitHub refused a request."""

    def __init__(self, problem: str, remedy: str, status: int) -> None:
        super().__init__(problem, remedy)
        self.status = status


class _User(BaseModel):
    login: str


class Post(BaseModel):
    """A comment or an issue."""

    model_config = ConfigDict(extra="ignore")

    id: int
    number: int = 0
    body: str | None = None
    user: _User | None = None
    pull_request: JsonValue = None

    def carries(self, marker: str, author: str) -> bool:
        """Whether `author` wrote it under `marker`, which is its first line."""
        by = self.user.login if self.user is not None else None
        return by == author and (self.body or "").partition("\n")[0].strip() == marker


@dataclass(frozen=True)
class GitHub:
    """One repository (`owner/name`) behind an API, as `author` sees it."""

    api: str
    token: str = field(repr=False)
    repository: str
    author: str = ACTIONS
    wait: Callable[[float], None] = time.sleep

    def comment(self, number: int, marker: str, body: str) -> Outcome:
        """Make the comment of issue or pull request `number` under `marker` say `body`."""
        return self._patiently(lambda: self._comment(number, marker, body))

    def comments(self, number: int) -> list[Post]:
        """All comments of an issue or pull request by `author`."""
        found = self._patiently(lambda: list(self._pages(f"issues/{number}/comments?per_page=100")))
        return [post for post in found if post.user is not None and post.user.login == self.author]

    def issue(self, marker: str, title: str, body: str) -> Outcome:
        """Make the open issue under `marker` say `body`, and its title what that says."""
        return self._patiently(lambda: self._issue(marker, title, body))

    def close(self, marker: str, reason: str) -> Outcome:
        """Close the open issue under `marker`, if there is one, with a comment that says why."""
        return self._patiently(lambda: self._close(marker, reason))

    def _comment(self, number: int, marker: str, body: str) -> Outcome:
        found = self._find(f"issues/{number}/comments?per_page=100", marker)
        if found is None:
            self._send("POST", f"issues/{number}/comments", {"body": body})
            return "created"
        return self._update(found, f"issues/comments/{found.id}", {"body": body})

    def _issue(self, marker: str, title: str, body: str) -> Outcome:
        found = self._find_issue(marker)
        if found is None:
            self._send("POST", "issues", {"title": title, "body": body})
            return "created"
        return self._update(found, f"issues/{found.number}", {"title": title, "body": body})

    def _close(self, marker: str, reason: str) -> Outcome:
        found = self._find_issue(marker)
        if found is None:
            return "unchanged"
        self._send("PATCH", f"issues/{found.number}", {"state": "closed", "state_reason": "completed"})
        self._send("POST", f"issues/{found.number}/comments", {"body": reason})
        return "closed"

    def _find_issue(self, marker: str) -> Post | None:
        return self._find("issues?state=open&per_page=100", marker)

    def _update(self, found: Post, path: str, content: Mapping[str, str]) -> Outcome:
        if (found.body or "").replace("\r\n", "\n").strip() == content["body"].strip():
            return "unchanged"
        self._send("PATCH", path, content)
        return "updated"

    def _find(self, path: str, marker: str) -> Post | None:
        posts = (post for post in self._pages(path) if post.pull_request is None)
        return next((post for post in posts if post.carries(marker, self.author)), None)

    def _pages(self, path: str) -> Iterator[Post]:
        url: str | None = self._url(path)
        while url is not None:
            text, headers = self._request("GET", url, None)
            try:
                yield from TypeAdapter(list[Post]).validate_json(text)
            except ValidationError as error:
                raise GitHubError(
                    f"{url} did not answer with a list: {error}", "Check the API's URL.", 200
                ) from error
            link = _next_page.search(headers.get("link", ""))
            url = link.group(1) if link else None

    def _send(self, method: str, path: str, body: Mapping[str, str]) -> None:
        self._request(method, self._url(path), body)

    def _url(self, path: str) -> str:
        return f"{self.api.rstrip('/')}/repos/{self.repository}/{path}"

    def _patiently(self, action: Callable[[], T]) -> T:
        """Every action looks before it writes, so it can be repeated when GitHub fails in the middle."""
        for attempt in range(1, ATTEMPTS):
            try:
                return action()
            except GitHubError as error:
                if error.status < 500:
                    raise
                self.wait(2.0**attempt)
        return action()

    def _request(
        self, method: str, url: str, body: Mapping[str, str] | None
    ) -> tuple[str, Mapping[str, str]]:
        parts, home = urlsplit(url), urlsplit(self.api)
        if (parts.scheme, parts.netloc) != (home.scheme, home.netloc):
            raise GitHubError(
                f"GitHub points to {url}, outside of {self.api}.", "The token is not sent there.", 400
            )
        make = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = make(parts.netloc, timeout=TIMEOUT)
        headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {self.token}",
            "User-Agent": "meshbridge",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        try:
            connection.request(method, target, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            text = response.read().decode("utf-8", errors="replace")
        except (OSError, HTTPException) as error:
            raise GitHubError(
                f"{method} {url} failed: {error!r}", "Check the network and try again.", 503
            ) from error
        finally:
            connection.close()
        received = {name.lower(): value for name, value in response.getheaders()}
        if not 200 <= response.status < 300:
            raise _refusal(method, url, response.status, text, received)
        return text, received


def _refusal(method: str, url: str, status: int, text: str, headers: Mapping[str, str]) -> GitHubError:
    problem = f"{method} {url} was answered with {status}: {_message(text)}"
    if status in (403, 429) and (headers.get("x-ratelimit-remaining") == "0" or "retry-after" in headers):
        status = 429
        remedy = f"The rate limit is used up; try again in {headers.get('retry-after', 'some')} seconds."
    elif status in (401, 403):
        remedy = (
            "The token may not do this: the job needs `pull-requests: write` or `issues: write`;"
            " the token of a fork's pull request never has it."
        )
    elif status == 404:
        remedy = "Check the repository and the number, and that the token may read them."
    elif status == 422:
        remedy = "GitHub refuses the content; report this with the message."
    else:
        remedy = "Try again later."
    return GitHubError(problem, remedy, status)


def _message(text: str) -> str:
    try:
        answer = json.loads(text)
    except ValueError:
        return text[:200] or "(no message)"
    if not isinstance(answer, dict):
        return text[:200]
    details = answer.get("errors")
    return str(answer.get("message", "(no message)")) + (f" {json.dumps(details)}" if details else "")
