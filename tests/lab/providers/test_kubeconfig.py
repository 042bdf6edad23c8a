"""Kubeconfigs: found, merged, and read into what a connection needs."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab.providers.credentials import Credentials
from lab.providers.kubeconfig import Access, KubeconfigError, load


def config(**user: object) -> dict[str, Any]:
    return {
        "current-context": "one",
        "clusters": [
            {"name": "c1", "cluster": {"server": "https://one:6443/"}},
            {"name": "c2", "cluster": {"server": "https://two", "insecure-skip-tls-verify": True}},
        ],
        "contexts": [
            {"name": "one", "context": {"cluster": "c1", "user": "u", "namespace": "demo"}},
            {"name": "two", "context": {"cluster": "c2", "user": "u"}},
        ],
        "users": [{"name": "u", "user": user}],
    }


def write(path: Path, content: object) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_path_and_contents_are_read_alike(tmp_path: Path) -> None:
    wanted = Access(server="https://one:6443", namespace="demo", token="secret")
    path = write(tmp_path / "config", config(token="secret"))
    assert load(str(path)) == wanted
    assert load(path.read_text()) == wanted
    assert load(json.dumps(config(token="secret"))) == wanted


def test_the_environment_decides_where_none_is_given(tmp_path: Path) -> None:
    first, second = config(token="first"), config(token="second")
    del first["clusters"]
    second["current-context"] = "two"
    paths = [write(tmp_path / "first", first), tmp_path / "absent", write(tmp_path / "second", second)]
    merged = load("", environment={"KUBECONFIG": ":".join(map(str, paths))})
    assert (merged.server, merged.token) == ("https://one:6443", "first")

    (tmp_path / ".kube").mkdir()
    write(tmp_path / ".kube" / "config", second)
    assert load("", environment={"HOME": str(tmp_path)}).server == "https://two"


@pytest.mark.parametrize(
    ("host", "server"), [("10.0.0.1", "https://10.0.0.1:443"), ("fd00::1", "https://[fd00::1]:443")]
)
def test_a_pod_without_a_kubeconfig_has_its_service_account(tmp_path: Path, host: str, server: str) -> None:
    for name, text in (("token", "t1\n"), ("ca.crt", "the CA"), ("namespace", "brokers\n")):
        (tmp_path / name).write_text(text)
    pod = {"HOME": str(tmp_path), "KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443"}

    found = load("", environment=pod, service_account=tmp_path)

    assert (found.server, found.ca, found.namespace) == (server, "the CA", "brokers")
    assert Credentials(found).header() == "Bearer t1"
    (tmp_path / "token").write_text("t2")
    assert Credentials(found).header() == "Bearer t2"
    with pytest.raises(KubeconfigError, match="no service account"):
        load("", environment=pod, service_account=tmp_path / "absent")
    with pytest.raises(KubeconfigError, match="no kubeconfig found"):
        load("", context="north", environment=pod, service_account=tmp_path)
    (tmp_path / "config").write_text(json.dumps(config(token="own")))
    own = load("", environment={**pod, "KUBECONFIG": str(tmp_path / "config")}, service_account=tmp_path)
    assert own.token == "own"


def test_context_and_cluster_can_be_chosen() -> None:
    text = json.dumps(config())
    other = load(text, context="two")
    assert (other.server, other.namespace, other.verify) == ("https://two", "default", False)
    assert load(text, cluster="c2").namespace == "demo"


def test_certificates_are_read_inline_and_by_path(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("CA")
    inline = {
        "client-certificate-data": base64.b64encode(b"CERT").decode(),
        "client-key": str(tmp_path / "key"),
    }
    (tmp_path / "key").write_text("KEY")
    content = config(**inline)
    content["clusters"][0]["cluster"].update(
        {"certificate-authority": "ca.pem", "tls-server-name": "kubernetes"}
    )
    access = load(str(write(tmp_path / "config", content)))
    assert (access.ca, access.client_certificate, access.client_key) == ("CA", "CERT", "KEY")
    assert access.server_name == "kubernetes"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"current-context": "three"}, "context 'three' is not in the kubeconfig; it has: one, two"),
        ({"current-context": ""}, "no current-context"),
        ({"clusters": []}, "cluster 'c1' is not in the kubeconfig; it has: none"),
        ({"users": []}, "user 'u' is not in the kubeconfig"),
        ({"clusters": [{"name": "c1", "cluster": {}}]}, "has no server"),
        (
            {"clusters": [{"name": "c1", "cluster": {"server": "x", "proxy-url": "y"}}]},
            "does not support proxy-url",
        ),
        ({"users": [{"name": "u", "user": {"client-key-data": "?"}}]}, "client-key-data is not base64"),
        ({"users": [{"name": "u", "user": {"client-key": "/absent"}}]}, "client-key cannot be read"),
    ],
)
def test_what_is_wrong_is_said(change: dict[str, Any], said: str) -> None:
    with pytest.raises(KubeconfigError, match=said.replace("?", r"\?")):
        load(json.dumps({**config(), **change}))


def test_no_kubeconfig_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        KubeconfigError, match=rf"no kubeconfig found \({tmp_path}/\.kube/config\).*renderYaml"
    ):
        load("", environment={"HOME": str(tmp_path)})


@pytest.mark.parametrize("given", ["/no/such/file", "a: [", "- a"])
def test_what_is_no_kubeconfig_is_refused(given: str) -> None:
    with pytest.raises(KubeconfigError, match="neither"):
        load(given)


def test_each_kind_of_credential_has_its_header(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    basic = base64.b64encode(b"me:pw").decode()
    for user, header in (
        ({"token": "t"}, "Bearer t"),
        ({"tokenFile": str(tmp_path / "token")}, "Bearer from-file"),
        ({"username": "me", "password": "pw"}, f"Basic {basic}"),
        ({}, None),
    ):
        assert Credentials(load(json.dumps(config(**user)))).header() == header


def command(script: str, **more: object) -> dict[str, object]:
    api = "client.authentication.k8s.io/v1"
    return {"exec": {"apiVersion": api, "command": "/bin/sh", "args": ["-c", script], **more}}


def test_a_credential_command_runs_once_while_its_token_holds(tmp_path: Path) -> None:
    count = tmp_path / "count"
    status = '{"status": {"token": "\'$NAME\'", "expirationTimestamp": "%s"}}'
    environment = [{"name": "NAME", "value": "t"}]
    for expires, runs in (("2999-01-01T00:00:00Z", 1), ("2001-01-01T00:00:00Z", 2)):
        count.write_text("")
        script = f"echo x >> {count}; echo '{status % expires}'"
        credentials = Credentials(load(json.dumps(config(**command(script, env=environment)))))
        assert [credentials.header(), credentials.header()] == ["Bearer t", "Bearer t"]
        assert count.read_text().count("x") == runs


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo denied >&2; exit 3", "exit status 3: denied"),
        ("echo nonsense", "gave no credential.*install it"),
    ],
)
def test_a_credential_command_that_fails_is_named(script: str, said: str) -> None:
    credentials = Credentials(load(json.dumps(config(**command(script, installHint="install it")))))
    with pytest.raises(KubeconfigError, match=f"/bin/sh.*{said}"):
        credentials.header()
