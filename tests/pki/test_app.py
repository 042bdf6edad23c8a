"""The command line: what scripts rely on, and that it never shows a private key."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import tools
from pki import CertificateAuthority, Kind, LockedError, store
from pki.app import main
from tests.pki.test_authority import CONSUMER, PROVIDER

# Writes down what it was called with and what it read.
PULUMI = f"""#!{sys.executable}
import json, os, sys
with open(os.path.dirname(__file__) + "/calls", "a") as calls:
    given = sys.stdin.read() if sys.argv[1] == "config" else None
    calls.write(json.dumps([sys.argv[1:], dict(os.environ), given]) + "\\n")
"""


@pytest.fixture
def ca(tmp_path: Path) -> str:
    directory = str(tmp_path / "ca")
    assert main(["create", directory, "--name", "Example"]) == 0
    return directory


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Pulumi project with a stack, an engine that only takes notes, and a state of the user's own."""
    root = tmp_path / "project"
    (root / "stacks").mkdir(parents=True)
    (root / "Pulumi.yaml").write_text("name: meshbridge\nruntime: python\nstackConfigDir: stacks\n")
    (root / "stacks/Pulumi.data.yaml").write_text("config: {}\n")
    binary = tmp_path / "pulumi"
    binary.write_text(PULUMI)
    binary.chmod(0o700)
    monkeypatch.setattr(tools, "ensure", lambda _name: binary)
    monkeypatch.setattr(tools, "engine_environment", lambda: dict(os.environ))
    monkeypatch.setenv("PULUMI_BACKEND_URL", "file:///state")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "phrase")
    return root


def calls(project: Path) -> list[Any]:
    return [json.loads(line) for line in (project.parent / "calls").read_text().splitlines()]


def written(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    capsys.readouterr()
    assert main(list(arguments)) == 0
    return json.loads(capsys.readouterr().out)


def keys(directory: str) -> list[str]:
    return [file.read_text().splitlines()[1] for file in Path(directory).rglob("*.key")]


def test_a_life_of_certificates(ca: str, capsys: pytest.CaptureFixture[str]) -> None:
    (server,) = written(capsys, "server", ca, PROVIDER, "--json")
    assert server["names"] == [PROVIDER, f"*.{PROVIDER}"]
    assert Path(server["folder"], "tls.crt").is_file()
    (client,) = written(capsys, "client", ca, CONSUMER, "--days", "10", "--json")
    (renewed,) = written(capsys, "renew", ca, "client", CONSUMER, "--json")
    assert renewed["serial"] != client["serial"]
    revoked = written(capsys, "revoke", ca, client["serial"], "--reason", "superseded", "--json")
    assert (revoked["status"], revoked["reason"]) == ("revoked", "superseded")
    assert main(["crl", ca]) == 0
    assert "BEGIN X509 CRL" in capsys.readouterr().out
    assert (
        main(["rotate", "add", ca]) == main(["rotate", "leaves", ca]) == main(["rotate", "remove", ca]) == 0
    )
    listed = written(capsys, "list", ca, "--json")
    assert {(r["kind"], r["root"]) for r in listed["records"]} == {("server", 2), ("client", 2)}
    assert [root["state"] for root in listed["roots"]] == ["removed", "issuing"]
    assert len(written(capsys, "list", ca, "--all", "--json")["records"]) == 5


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 0, "Usage"),
        (["server"], 64, "Missing argument"),
        (["create", "CA", "--name", "Example"], 1, "--force"),
        (["server", "CA", "*.data.example"], 1, "no host name"),
        (["server", "NONE", PROVIDER], 1, "holds no certificate authority"),
        (["revoke", "CA", "abc"], 1, "never issued"),
        (["revoke", "CA", "abc", "--reason", "boredom"], 64, "is not one of"),
        (["mesh-ca", "CA", "prod-eu"], 1, "--purpose mesh"),
        (["rotate", "remove", "CA"], 1, "rotate add"),
        (["bundle", "create"], 64, "either --outputs or --stack"),
        (["server", "CA", PROVIDER, "--days", "0"], 64, "greater than or equal to 1"),
        (["server", "CA", PROVIDER, "--days", "9999999"], 64, "less than or equal to"),
        (["create", "NEW", "--name", "x" * 61], 1, "longer than 60 bytes"),
        (["list", "FILE"], 1, "Not a directory"),
    ],
)
def test_exit_codes(
    arguments: list[str], code: int, words: str, ca: str, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"CA": ca, "NONE": f"{ca}/issued", "NEW": f"{ca}/new", "FILE": f"{ca}/ca.crt"}
    assert main([places.get(argument, argument) for argument in arguments]) == code
    shown = capsys.readouterr()
    assert words in shown.out + shown.err


def test_a_second_writer_is_told_to_wait(ca: str, capsys: pytest.CaptureFixture[str]) -> None:
    with store.locked(Path(ca)):
        assert main(["server", ca, PROVIDER]) == 75
    assert "another process" in capsys.readouterr().err
    assert issubclass(LockedError, Exception)


def test_no_command_shows_a_private_key(ca: str, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        ["server", ca, PROVIDER],
        ["client", ca, CONSUMER],
        ["list", ca],
        ["list", ca, "--json"],
        ["crl", ca],
    ):
        assert main(command) == 0
    folder = f"{ca}/issued/server-{PROVIDER}"
    assert main(["check", folder, "--id", "other.example", "--usage", "client"]) == 2
    shown = capsys.readouterr()
    assert len(keys(ca)) >= 3
    assert not any(key in shown.out + shown.err for key in keys(ca))


def test_what_is_issued_is_fit_for_use(ca: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["crl", ca])
    for kind, identity in (("server", PROVIDER), ("client", CONSUMER)):
        main([kind, ca, identity])
        folder = f"{ca}/issued/{kind}-{identity}"
        assert written(capsys, "check", folder, "--id", identity, "--usage", kind, "--json") == []


def test_check_names_what_is_wrong(ca: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["server", ca, PROVIDER, "--days", "20"])
    folder = f"{ca}/issued/server-{PROVIDER}"
    capsys.readouterr()
    assert main(["check", folder, "--id", PROVIDER, "--usage", "client", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert {(f["check"], f["severity"]) for f in found} == {
        ("extended-key-usage", "error"),
        ("expires-soon", "warning"),
    }
    assert main(["check", folder, "--id", PROVIDER, "--usage", "server"]) == 0


def printed(folder: Path, **changes: object) -> dict[str, Any]:
    """The Secret of a folder's files, as the API server has it."""
    data = {file.name: base64.b64encode(file.read_bytes()).decode() for file in folder.iterdir()}
    metadata = {"name": "provider-server", "namespace": "mesh-ingress"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data} | changes


@pytest.fixture
def folder(ca: str) -> Path:
    """A server certificate with everything that belongs to it."""
    main(["server", ca, PROVIDER])
    main(["crl", ca])
    return Path(f"{ca}/issued/server-{PROVIDER}")


AS_SERVER = ("--id", PROVIDER, "--usage", "server")


@pytest.mark.parametrize("write", [json.dumps, yaml.safe_dump], ids=["json", "yaml"])
def test_check_judges_a_secret_as_it_judges_files(
    write: Callable[[object], str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = folder.parent / "secret"

    def judged(secret: dict[str, Any], *options: str) -> tuple[int, set[tuple[str, str]]]:
        file.write_text(write(secret))
        file.chmod(0o600)
        from_stdin, from_file = (_judged(source, *options) for source in ("-", str(file)))
        assert from_stdin == from_file
        return from_file

    def _judged(source: str, *options: str) -> tuple[int, set[tuple[str, str]]]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
        capsys.readouterr()
        code = main(["check", source, "--json", *(options or AS_SERVER)])
        return code, {(found["check"], found["key"]) for found in json.loads(capsys.readouterr().out)}

    whole = printed(folder)
    assert set(whole["data"]) == {"tls.crt", "tls.key", "ca.crt", "ca.crl"}
    assert judged(whole) == (0, set())
    assert judged(whole, "--id", "other.example", "--usage", "client") == (
        2,
        {("name", "tls.crt"), ("extended-key-usage", "tls.crt")},
    )
    broken = {**whole["data"], "ca.crl": base64.b64encode(b"-----BEGIN X509 CRL-----").decode()}
    assert judged({**whole, "data": broken}) == (2, {("pem-syntax", "ca.crl")})
    missing = {("pem-syntax", "tls.crt"), ("pem-syntax", "tls.key"), ("trust-missing", "ca.crt")}
    for nothing in ({}, None, {"tls.pem": "AAAA"}):
        assert judged({**whole, "data": nothing}) == (2, missing)
    del whole["data"]["ca.crt"], whole["data"]["ca.crl"]
    assert judged(whole) == (2, {("trust-missing", "ca.crt")})
    assert judged(whole, *AS_SERVER, "--trust-elsewhere") == (0, set())


def test_check_names_what_a_secret_lacks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = json.dumps(printed(folder, data={}))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(secret.encode())))
    assert main(["check", "-", *AS_SERVER]) == 2
    shown = capsys.readouterr().out
    for key, rule in (
        ("tls.crt", "missing or empty"),
        ("tls.key", "missing or empty"),
        ("ca.crt", "missing"),
    ):
        assert any(key in line and rule in line for line in shown.splitlines()), (key, shown)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace('"Secret"', '"ConfigMap"'), "is no Secret: it is a ConfigMap"),
        (lambda text: text.replace('"Secret"', '"List"'), "is no Secret: it is a List"),
        (lambda text: text.replace('"kind"', '"sort"'), "is no Secret: it has no `kind`"),
        (lambda text: f"[{text}]", "is no Secret: it has no `kind`"),
        (lambda _text: "", "is no Secret: it has no `kind`"),
        (lambda text: text[: text.index('"tls.key": "') + 60], "is neither JSON nor YAML"),
        (lambda text: text.replace('"tls.key": "', '"tls.key": "?'), "`tls.key` is not PEM in base64"),
        (lambda text: text.replace('"tls.key": "', '"tls.key": "/////'), "`tls.key` is not PEM in base64"),
        (
            lambda text: text.replace('"tls.key": "', '"tls.key": 7, "other": "'),
            "`tls.key` is not PEM in base64",
        ),
    ],
)
def test_check_refuses_what_is_no_secret_and_shows_nothing_of_it(
    change: Callable[[str], str], words: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = printed(folder)
    file = tmp_path / "secret.json"
    file.write_text(change(json.dumps(secret)))
    file.chmod(0o600)
    assert main(["check", str(file), *AS_SERVER]) == 1
    shown = capsys.readouterr()
    said = shown.out + shown.err
    assert words in said
    assert "kubectl get secret" in said
    private = secret["data"]["tls.key"]
    assert not any(private[start : start + 12] in said for start in range(len(private) - 12))


def test_check_refuses_a_secret_that_others_may_read(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "secret.json"
    file.write_text(json.dumps(printed(folder)))
    file.chmod(0o644)
    assert main(["check", str(file), *AS_SERVER]) == 1
    assert "mode 644" in capsys.readouterr().err
    assert main(["check", str(tmp_path / "none.json"), *AS_SERVER]) == 1
    assert "none.json does not exist" in capsys.readouterr().err


def test_store_hands_the_key_over_where_nobody_sees_it(ca: str, project: Path) -> None:
    main(["server", ca, PROVIDER])
    folder = f"{ca}/issued/server-{PROVIDER}"
    place = ["--stack", "data", "--secret", "provider-server", "--project", str(project)]
    assert main(["store", folder, *place]) == 0
    (select, config) = calls(project)
    assert select[0][:2] == ["stack", "select"]
    assert config[0][:4] == ["config", "set", "--secret", "meshbridge:certificate-provider-server"]
    assert config[0][config[0].index("--config-file") + 1] == str(project / "stacks/Pulumi.data.yaml")
    opened = CertificateAuthority.open(Path(ca)).issued(Kind.SERVER, PROVIDER)
    assert json.loads(config[2]) == opened.files()
    for arguments, environment, _ in calls(project):
        assert not any(key in json.dumps([arguments, environment]) for key in keys(ca))


def test_store_takes_the_authority_of_a_mesh(tmp_path: Path, project: Path) -> None:
    mesh = str(tmp_path / "mesh")
    assert main(["create", mesh, "--name", "Mesh", "--purpose", "mesh"]) == 0
    assert main(["mesh-ca", mesh, "north"]) == 0
    issued = CertificateAuthority.open(Path(mesh)).issued(Kind.MESH, "north")
    place = ["--stack", "data", "--secret", "mesh", "--project", str(project)]
    assert main(["store", str(issued.folder), *place]) == 0
    (_, config) = calls(project)
    assert config[0][:4] == ["config", "set", "--secret", "meshbridge:certificate-mesh"]
    assert json.loads(config[2]) == issued.files()
    (issued.folder / "ca-key.pem").chmod(0o644)
    assert main(["store", str(issued.folder), *place]) == 1
    (issued.folder / "ca-key.pem").chmod(0o600)
    (issued.folder / "root-cert.pem").unlink()
    assert main(["store", str(issued.folder), *place]) == 1
    assert len(calls(project)) == 2


def test_store_refuses_a_passphrase_that_only_this_checkout_knows(
    ca: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["server", ca, PROVIDER])
    monkeypatch.delenv("PULUMI_BACKEND_URL")
    monkeypatch.delenv("PULUMI_CONFIG_PASSPHRASE")
    place = ["--stack", "data", "--secret", "s", "--project", str(project)]
    assert main(["store", f"{ca}/issued/server-{PROVIDER}", *place]) == 1
    assert "only this checkout knows" in capsys.readouterr().err
    assert not (project.parent / "calls").exists()
    assert (project / "stacks/Pulumi.data.yaml").read_text() == "config: {}\n"


def test_store_refuses_what_others_may_read_or_a_stack_cannot_carry(
    ca: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["server", ca, PROVIDER])
    folder = Path(f"{ca}/issued/server-{PROVIDER}")
    place = ["--stack", "data", "--secret", "s", "--project", str(project)]
    (folder / "ca.crl").write_text("x" * 70_000)
    assert main(["store", str(folder), *place]) == 1
    assert "more than a stack's configuration can carry" in capsys.readouterr().err
    (folder / "tls.key").chmod(0o644)
    assert main(["store", str(folder), *place]) == 1
    assert "mode 644" in capsys.readouterr().err
    (folder / "tls.key").unlink()
    assert main(["store", str(folder), *place]) == 1
    assert "does not exist" in capsys.readouterr().err


def exported(ca: str, tmp_path: Path) -> str:
    provider = {
        "id": PROVIDER,
        "systemDomain": PROVIDER,
        "port": 9000,
        "caCertificate": Path(ca, "ca.crt").read_text(),
        "ingressGateway": "mesh-ingress/provider-ingress",
        "services": {},
    }
    file = tmp_path / "outputs.json"
    file.write_text(json.dumps({"provider": provider, "target": "x"}))
    return str(file)


def test_a_bundle_is_made_shown_and_verified(
    ca: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["server", ca, PROVIDER])
    bundle = str(tmp_path / "data.json")
    make = ["bundle", "create", "--outputs", exported(ca, tmp_path), "--out", bundle]
    assert main([*make, "--sign", f"{ca}/issued/server-{PROVIDER}"]) == 0
    shown = written(capsys, "bundle", "show", bundle, "--json")
    assert (shown["id"], shown["signed"]) == (PROVIDER, True)
    (fingerprint,) = shown["caFingerprints"]
    for pins in (["--ca-fingerprint", fingerprint], ["--digest", f"sha256:{shown['bundleDigest']}"], []):
        assert main(["bundle", "verify", bundle, *pins]) == 0
    assert "says nothing about who made it" in capsys.readouterr().out
    assert main(["bundle", "verify", bundle, "--digest", fingerprint]) == 2
    assert "another bundle" in capsys.readouterr().err
    assert main(make) == 1
    assert main([*make, "--force"]) == 0
    assert not written(capsys, "bundle", "show", bundle, "--json")["signed"]


@pytest.mark.parametrize("command", ["show", "verify"])
def test_a_file_without_an_end_is_no_bundle(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", command, "/dev/zero"]) == 1
    assert "/dev/zero has more than 8388608 bytes" in capsys.readouterr().err


def test_a_consumer_makes_a_bundle_of_its_own(
    ca: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["client", ca, CONSUMER])
    about = {"id": CONSUMER, "caCertificate": Path(ca, "ca.crt").read_text(), "endpoints": []}
    (tmp_path / "outputs.json").write_text(json.dumps({"consumer": about}))
    bundle = str(tmp_path / "shop.json")
    make = [
        "bundle",
        "create",
        "--role",
        "consumer",
        "--outputs",
        str(tmp_path / "outputs.json"),
        "--out",
        bundle,
    ]
    assert main([*make, "--sign", f"{ca}/issued/client-{CONSUMER}"]) == 0
    shown = written(capsys, "bundle", "show", bundle, "--json")
    assert (shown["role"], shown["id"], shown["signed"]) == ("consumer", CONSUMER, True)
    assert main(["bundle", "verify", bundle, "--ca-fingerprint", shown["caFingerprints"][0]]) == 0


def test_a_bundle_without_a_provider_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "outputs.json").write_text("{}")
    assert main(["bundle", "create", "--outputs", str(tmp_path / "outputs.json")]) == 1
    assert "is no provider" in capsys.readouterr().err
    assert main(["bundle", "create", "--role", "consumer", "--outputs", str(tmp_path / "outputs.json")]) == 1
    assert "id: null is missing but required" in capsys.readouterr().err
