"""An authority that the tests may do anything with, and a clock that they set."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from pki import CertificateAuthority


class Clock:
    """Says what time it is; tests move it."""

    def __init__(self) -> None:
        self.now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)

    def __call__(self) -> datetime.datetime:
        return self.now

    def pass_by(self, **time: float) -> None:
        self.now += datetime.timedelta(**time)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(tmp_path: Path, clock: Clock) -> CertificateAuthority:
    return CertificateAuthority.create(tmp_path / "ca", "Example", clock=clock)
