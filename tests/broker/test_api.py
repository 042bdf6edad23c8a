"""The OSB API under schemathesis: whatever is sent, no fault of the server and no status that is not documented."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import status_code_conformance

from broker.app import create_app
from broker.proxy import Proxy
from tests.broker.chain import PASSWORD, USER, Chain, common, load

EXAMPLES = 12
"""Requests for each operation on each of its two paths."""
TEXTS = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=12)
HEADERS = st.fixed_dictionaries(
    {"X-Broker-API-Version": st.sampled_from(["2.17", "2.17", "2.17", "2.0", "3.0", "x", ""])},
    optional={
        "X-Broker-API-Request-Identity": TEXTS,
        "X-Broker-API-Originating-Identity": TEXTS,
        "X-Istio-Broker-Versions": TEXTS,
        "Content-Encoding": st.sampled_from(["identity", "gzip", "x"]),
    },
)


def _schema() -> schemathesis.BaseSchema:
    with tempfile.TemporaryDirectory() as name:
        read = load(Path(name), common(Path(name), "http://localhost:1", role="forward"))
    return schemathesis.openapi.from_dict(create_app(read, Proxy(read)).openapi())


OPERATIONS = {
    found.label: found
    for found in (result.ok() for result in _schema().get_all_operations() if isinstance(result, Ok))
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    chain = Chain(tmp_path_factory.mktemp("api"))
    assert chain.platform.provision().status_code == 201
    yield chain
    chain.close()


def test_the_whole_api_is_described() -> None:
    assert len(OPERATIONS) == 2 * 11


@pytest.mark.parametrize("role", ["consumer", "provider"])
@pytest.mark.parametrize("label", OPERATIONS)
def test_no_input_breaks_the_api(api: Chain, label: str, role: str) -> None:
    url = api.consumer_url if role == "consumer" else api.provider_url

    @given(case=OPERATIONS[label].as_strategy(), headers=HEADERS)
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def hold(case: schemathesis.Case[Any], headers: dict[str, str]) -> None:
        # As a client sends them: field values have no space around them, and may be any bytes.
        sent = {key: value.strip().encode("latin-1") for key, value in headers.items()}
        response = case.call(base_url=url, headers=sent, auth=(USER, PASSWORD))
        assert response.headers["x-broker-api-request-identity"]
        assert response.headers["x-istio-broker-versions"]
        case.validate_response(response, checks=[not_a_server_error, status_code_conformance])

    hold()
