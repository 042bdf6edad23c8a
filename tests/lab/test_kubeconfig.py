from __future__ import annotations

import base64
from pathlib import Path

import yaml

from lab.kubeconfig import Access, kubeconfig, write_kubeconfig

ACCESS = Access("north", "https://127.0.0.1:6443", b"-----BEGIN CERTIFICATE-----\n")


def test_the_current_context_leads_to_the_server_its_authority_and_the_token() -> None:
    config = yaml.safe_load(kubeconfig(ACCESS, "secret"))

    context = {item["name"]: item["context"] for item in config["contexts"]}[config["current-context"]]
    cluster = {item["name"]: item["cluster"] for item in config["clusters"]}[context["cluster"]]
    user = {item["name"]: item["user"] for item in config["users"]}[context["user"]]
    assert cluster["server"] == ACCESS.server
    assert base64.b64decode(cluster["certificate-authority-data"]) == ACCESS.authority
    assert user == {"token": "secret"}


def test_only_the_owner_can_read_the_file_even_if_it_was_there(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    path.touch(mode=0o644)

    assert write_kubeconfig(path, ACCESS, "secret") == path

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == kubeconfig(ACCESS, "secret")
