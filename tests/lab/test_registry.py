from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import registry
from lab.errors import LabError
from lab.registry import Registration


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "meshbridge"


@pytest.fixture
def taken() -> Iterator[Registration]:
    registration = Registration.take("lab")
    yield registration
    registration.release()
    registration.directory.rmdir()


def test_a_lab_describes_itself_from_the_start(taken: Registration) -> None:
    found = registry.described()

    assert found is not None
    assert (found.pid, found.phase, found.directory) == (os.getpid(), "starting", str(taken.directory))
    taken.clusters["north"] = {"kubeconfig": "k"}
    taken.write("ready")
    found = registry.described()
    assert found is not None
    assert (found.phase, found.clusters) == ("ready", {"north": {"kubeconfig": "k"}})


def test_a_second_lab_of_the_same_name_is_refused_and_the_first_stays(taken: Registration) -> None:
    with pytest.raises(LabError, match=rf"a lab runs already \(process {os.getpid()}, starting\).*lab down"):
        Registration.take("lab")

    assert registry.is_running()


def test_labs_of_different_names_have_different_slots(taken: Registration) -> None:
    other = Registration.take("other")
    try:
        assert other.slot != taken.slot
    finally:
        other.release()
        other.directory.rmdir()


def test_there_are_so_many_slots_and_no_more(taken: Registration, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.registry.SLOTS", 0)

    with pytest.raises(LabError, match="end one of them first"):
        Registration.take("other")

    monkeypatch.undo()


def test_without_a_lab_there_is_no_description(state: Path) -> None:
    assert registry.described() is None
    registration = Registration.take("lab")
    registration.release()
    registration.directory.rmdir()

    assert registry.described() is None
    assert not registry.is_running()


def test_what_a_killed_lab_wrote_is_not_believed(state: Path) -> None:
    registration = Registration.take("lab")
    left = (state / "lab.json").read_text()
    registration.release()
    registration.directory.rmdir()
    (state / "lab.json").write_text(left)

    assert registry.described() is None
