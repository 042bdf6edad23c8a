"""The lab's small client of the Kubernetes API."""

from __future__ import annotations

import io
import urllib.error
from email.message import Message
from typing import Any

import pytest

from lab import api
from lab.api import Api
from lab.errors import ApiError
from lab.kubeconfig import Access
from lab.pki import Authority


@pytest.fixture
def client() -> Api:
    return Api(Access("test", "https://127.0.0.1:1", Authority.create("test").pem), "token")


class Answer(io.BytesIO):
    headers = Message()


def refused(status: int) -> urllib.error.HTTPError:
    return urllib.error.HTTPError("", status, "", Message(), io.BytesIO(b'{"message": "the reason"}'))


def test_what_a_server_does_not_take_for_now_is_sent_again(
    client: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[urllib.error.HTTPError | Answer] = [refused(429), refused(429), Answer(b"done")]
    sent = []

    def open_(request: Any, timeout: float) -> Answer:
        sent.append((request.method, timeout))
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(client._opener, "open", open_)
    monkeypatch.setattr(api.Api.request.retry, "sleep", lambda _: None)

    assert client.request("DELETE", "/api/v1/namespaces/x") == {"text": "done"}
    assert sent == [("DELETE", api.TIMEOUT)] * 3


def test_a_refusal_is_not_repeated(client: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []

    def open_(request: Any, timeout: float) -> Answer:
        sent.append((request.method, timeout))
        raise refused(409)

    monkeypatch.setattr(client._opener, "open", open_)

    with pytest.raises(ApiError, match="409 the reason"):
        client.request("POST", "/api/v1/namespaces")
    assert len(sent) == 1
