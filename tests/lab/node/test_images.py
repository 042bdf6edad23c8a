from __future__ import annotations

import pytest

from lab.node import images
from lab.node.images import Image

KNOWN = {"proxyv2": Image(("agent",))}


@pytest.mark.parametrize(
    "reference",
    [
        "proxyv2",
        "proxyv2:1.31",
        "docker.io/istio/proxyv2:1.31-distroless",
        "localhost:5000/istio/proxyv2@sha256:ab",
    ],
)
def test_an_image_is_known_by_its_name_in_whatever_registry_and_version(reference: str) -> None:
    assert images.find(KNOWN, reference) is KNOWN["proxyv2"]


def test_an_unknown_image_is_not_found() -> None:
    assert images.find(KNOWN, "docker.io/library/nginx") is None
