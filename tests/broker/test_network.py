"""How the endpoints of bindings are called."""

from __future__ import annotations

import pytest

from broker.documents import Json
from broker.errors import UpstreamError
from broker.network import MAX_ENDPOINTS, MAX_LABEL, is_slug_of, label, read_endpoints, slug


@pytest.mark.parametrize("binding_id", ["UPPER-CASE", "x" * (MAX_LABEL + 1), "a/b", "-a", "ä"])
def test_no_binding_can_have_the_names_of_another_one(binding_id: str) -> None:
    """A platform chooses the ids of its bindings, also that by which another one's objects are called."""
    theirs = label(binding_id)

    assert label(theirs) != theirs
    assert not is_slug_of(slug(binding_id, 0), theirs)
    assert len(label(theirs)) <= MAX_LABEL


def test_the_routes_of_a_binding_are_bounded() -> None:
    def offered(ports: int) -> list[Json]:
        return [{"host": "10.0.0.1", "ports": [str(port) for port in range(1, ports + 1)]}]

    assert len(read_endpoints(offered(MAX_ENDPOINTS))) == MAX_ENDPOINTS
    with pytest.raises(UpstreamError, match=f"{MAX_ENDPOINTS + 1} endpoints; .* {MAX_ENDPOINTS} routes"):
        read_endpoints(offered(MAX_ENDPOINTS + 1))


def test_an_id_that_is_a_label_names_its_objects() -> None:
    for binding_id in ("a", "22222222-2222-4222-8222-222222222222", "h" + "0" * (MAX_LABEL - 2)):
        assert label(binding_id) == binding_id
