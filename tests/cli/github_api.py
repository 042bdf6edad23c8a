"""A server that answers like GitHub's API for comments and issues: pages, permissions, length limits, failures."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

ME = "github-actions[bot]"
TOKEN = "ghs_test"
REPOSITORY = "acme/mesh"
MAX_PAGE = 100
MAX_BODY = 65_536

Json = dict[str, object]


@dataclass
class Api:
    """What the server holds, what it was asked, and how it should misbehave."""

    comments: dict[int, list[Json]] = field(default_factory=dict)
    issues: list[Json] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    read_only: bool = False
    rate_limited: bool = False
    failures: list[int] = field(default_factory=list)
    next_host: str | None = None
    url: str = ""
    _last: int = 1000

    def new_id(self) -> int:
        self._last += 1
        return self._last

    def add_comment(self, number: int, body: str, by: str = ME) -> Json:
        comment: Json = {"id": self.new_id(), "body": body, "user": {"login": by}, "html_url": "x"}
        self.comments.setdefault(number, []).append(comment)
        return comment

    def add_issue(self, title: str, body: str, by: str = ME, **more: object) -> Json:
        number = self.new_id()
        issue: Json = {"id": number * 7, "number": number, "title": title, "body": body, "state": "open"}
        self.issues.append({**issue, "user": {"login": by}, **more})
        return self.issues[-1]

    def bodies(self, number: int) -> list[object]:
        return [comment["body"] for comment in self.comments.get(number, [])]


class _Handler(BaseHTTPRequestHandler):
    api: Api

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        match parts.path.removeprefix(f"/repos/{REPOSITORY}/").split("/"):
            case ["issues", number, "comments"]:
                items = self.api.comments.get(int(number), [])
            case ["issues"]:
                items = [issue for issue in self.api.issues if issue["state"] == "open"]
            case _:
                return self._answer(404, {"message": "Not Found"})
        query = parse_qs(parts.query)
        size = min(int(query.get("per_page", ["30"])[0]), MAX_PAGE)
        page = int(query.get("page", ["1"])[0])
        headers = {}
        if page * size < len(items):
            host = self.api.next_host or self.api.url
            headers["Link"] = (
                f'<{host}{parts.path}?per_page={size}&page={page + 1}>; rel="next", <{host}>; rel="last"'
            )
        return self._answer(200, items[(page - 1) * size : page * size], headers)

    def do_POST(self) -> None:
        body = self._body()
        if body is None:
            return None
        match urlsplit(self.path).path.removeprefix(f"/repos/{REPOSITORY}/").split("/"):
            case ["issues", number, "comments"]:
                return self._answer(201, self.api.add_comment(int(number), str(body["body"])))
            case ["issues"]:
                return self._answer(201, self.api.add_issue(str(body["title"]), str(body["body"])))
        return self._answer(404, {"message": "Not Found"})

    def do_PATCH(self) -> None:
        body = self._body()
        if body is None:
            return None
        match urlsplit(self.path).path.removeprefix(f"/repos/{REPOSITORY}/").split("/"):
            case ["issues", "comments", wanted]:
                found = [
                    c for comments in self.api.comments.values() for c in comments if c["id"] == int(wanted)
                ]
            case ["issues", wanted]:
                found = [issue for issue in self.api.issues if issue["number"] == int(wanted)]
            case _:
                found = []
        if not found:
            return self._answer(404, {"message": "Not Found"})
        found[0].update(body)
        return self._answer(200, found[0])

    def _body(self) -> Json | None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.api.read_only:
            self._answer(403, {"message": "Resource not accessible by integration"})
            return None
        if len(content.get("body", "")) > MAX_BODY:
            error = {"resource": "IssueComment", "code": "custom", "message": "body is too long"}
            self._answer(422, {"message": "Validation Failed", "errors": [error]})
            return None
        assert isinstance(content, dict)
        return content

    def _answer(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        self.api.requests.append(f"{self.command} {self.path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}" or not self.headers.get("User-Agent"):
            self._answer(401, {"message": "Bad credentials"})
        elif self.api.rate_limited:
            limits = {"x-ratelimit-remaining": "0", "Retry-After": "60"}
            self._answer(403, {"message": "API rate limit exceeded"}, limits)
        elif self.api.failures:
            self._answer(self.api.failures.pop(0), "a proxy's page")
        else:
            return True
        return False

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """Say nothing."""


@contextmanager
def serving() -> Iterator[Api]:
    """The API on a port of its own, as long as the block runs."""
    api = Api()
    handler = type("Handler", (_Handler,), {"api": api})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        api.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()
