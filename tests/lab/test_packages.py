from __future__ import annotations

import subprocess

import pytest

from lab import packages
from lab.errors import LabError


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without dnsmasq."""
    monkeypatch.setattr(packages, "_is_there", lambda command: command != "dnsmasq")


def test_what_is_missing_is_named_by_its_package(bare: None) -> None:
    assert packages.missing() == ["dnsmasq-base"]


def test_nothing_is_installed_where_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "_is_there", lambda _command: True)
    monkeypatch.setattr(subprocess, "run", None)

    assert packages.install() == []


def test_who_is_not_root_is_told_what_to_install(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    with pytest.raises(LabError, match=r"only root can.*apt-get install dnsmasq-base"):
        packages.install()


def test_where_there_is_no_apt_the_packages_are_named(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda _command: None)

    with pytest.raises(LabError, match="dnsmasq-base"):
        packages.install()


def test_a_failing_apt_is_quoted(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(command: list[str], **_options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 100, "", "E: Failed to fetch")

    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda _command: "/usr/bin/apt-get")
    monkeypatch.setattr(subprocess, "run", failing)

    with pytest.raises(LabError, match=r"(?s)E: Failed to fetch.*by hand: apt-get install dnsmasq-base"):
        packages.install()
