from __future__ import annotations

from pathlib import Path

import pytest

from broker import settings
from broker.settings import SettingsError
from tests.broker.chain import consumer_settings, provider_settings, write_settings


def test_flags_win_over_the_environment_over_secret_files_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_settings(
        tmp_path / "s.yaml", **consumer_settings(tmp_path, "http://file:1", stack="file", shards=3)
    )
    (tmp_path / "password").write_text("from-the-secret-file\n")
    monkeypatch.setenv("MESHBRIDGE_BROKER_STACK", "environment")
    monkeypatch.setenv("MESHBRIDGE_BROKER_UPSTREAM", "http://environment:1")
    monkeypatch.setenv("MESHBRIDGE_BROKER_CONSUMER__SERVICE_PORT", "6000")

    read = settings.read({"stack": "flag"}, file, tmp_path)

    assert (read.stack, read.upstream, read.shards) == ("flag", "http://environment:1", 3)
    assert read.password is not None
    assert read.password.get_secret_value() == "from-the-secret-file"
    assert "from-the-secret-file" not in repr(read)
    assert read.consumer is not None
    assert (read.consumer.service_port, read.consumer.id) == (6000, "client.shop.example")


def test_a_section_may_be_written_in_part(tmp_path: Path) -> None:
    cluster = {"trustDomain": "shop.example", "context": "north"}
    file = write_settings(tmp_path / "s.yaml", **consumer_settings(tmp_path, "http://a:1", cluster=cluster))

    read = settings.read({}, file)

    assert (read.cluster.trust_domain, read.cluster.context) == ("shop.example", "north")


def test_a_default_that_depends_on_what_is_missing_is_no_finding() -> None:
    with pytest.raises(SettingsError) as refused:
        settings.read({}, None)
    assert str(refused.value).splitlines() == [
        "the settings are refused, 2 findings:",
        "  role: Field required",
        "  upstream: Field required",
    ]


def probed(namespaces: list[str], **probe: int) -> dict[str, object]:
    """A section with a probe."""
    return {"id": "a.b", "namespaces": namespaces, "systemDomains": ["x.y"], "probe": probe}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"username": None}, "username"),
        ({"anonymous": True}, "anonymous"),
        ({"password": None}, "password"),
        ({"consumer": None}, "section `consumer`"),
        ({"networkProfile": ""}, "network_profile"),
        ({"upstream": "http://user:pw@host"}, "upstream_username"),
        ({"upstream": "http://host:99999"}, "upstream: is no http(s) URL"),
        ({"upstream": "http://host/v1?x=1"}, "upstream: is no http(s) URL"),
        ({"listen": "8080"}, "HOST:PORT"),
        ({"stack": "a/b"}, "stack name"),
        ({"tlsKey": "/k"}, "tls_certificate"),
        ({"cluster": {"render": True}}, "render"),
        ({"consumer": {"id": "", "namespaces": ["shop"]}}, "consumer.id"),
        ({"consumer": {"id": "a.b", "namespaces": []}}, "namespaces"),
        (
            {"consumer": {"id": "a.b", "namespaces": ["mesh-egress"], "systemDomains": ["x.y"]}},
            "mesh-egress",
        ),
        ({"upstreamTimeout": 20, "deployTimeout": 20}, "upstream_timeout"),
        ({"refuse": ["everything"]}, "refuse"),
        ({"database": "broker.db"}, "database: is no SQLAlchemy URL; write 'sqlite"),
        (
            {"database": "postgresql://broker@db/broker"},
            "'postgresql', which no broker speaks; write .*psycopg",
        ),
        ({"database": "postgresql+psycopg://u:p@ss:word@db/x"}, "database: is no SQLAlchemy URL; write"),
        ({"database": "sqlite://"}, "database: names no database"),
        ({"database": "sqlite:///:memory:"}, "database: names no database"),
        ({"state": "./state"}, "state: is no URL of a Pulumi backend"),
        ({"state": "https://api.pulumi.example"}, "state: is no URL of a Pulumi backend .*; begin it"),
        (
            {"database": "postgresql+psycopg://broker@db/broker"},
            "files of one machine .*; give `state` a URL",
        ),
        ({"consumer": probed(["shop"], attempts=6)}, "41 s (`consumer.probe`), longer .*; lower"),
        ({"consumer": probed(["shop", "billing"])}, "2 namespaces (`consumer.probe`)"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, change: dict[str, object], said: str) -> None:
    values = {**consumer_settings(tmp_path, "http://localhost:1"), **change}
    file = write_settings(tmp_path / "s.yaml", **{k: v for k, v in values.items() if v is not None})

    with pytest.raises(SettingsError, match=said.replace("`", ".").replace("(", r"\(").replace(")", r"\)")):
        settings.read({}, file)


def test_a_consumer_waits_longer_for_the_provider_than_that_for_its_broker_and_its_route(
    tmp_path: Path,
) -> None:
    for folder in ("consumer", "provider"):
        (tmp_path / folder).mkdir()
    values = {
        "consumer": consumer_settings(tmp_path / "consumer", "http://localhost:1", deployTimeout=30),
        "provider": provider_settings(tmp_path / "provider", "http://localhost:1", deployTimeout=30),
    }
    read = {}
    for role, given in values.items():
        del given["upstreamTimeout"]
        read[role] = settings.read({}, write_settings(tmp_path / role / "s.yaml", **given))

    assert read["provider"].upstream_timeout == 60
    assert read["consumer"].upstream_timeout > 60 + 30


def test_secrets_in_a_file_that_others_read_are_refused(tmp_path: Path) -> None:
    file = write_settings(tmp_path / "s.yaml", **provider_settings(tmp_path, "http://localhost:1"))
    file.chmod(0o644)

    with pytest.raises(SettingsError, match="chmod 600"):
        settings.read({}, file)


@pytest.mark.parametrize(
    "rest",
    [
        "broker:s3cret@db/broker",
        "broker@db/broker?password=s3cret",
        "broker@db/broker?sslmode=disable&sslpassword=s3cret",
    ],
)
@pytest.mark.parametrize("name", ["database", "state"])
def test_a_url_with_a_password_is_a_secret(tmp_path: Path, name: str, rest: str) -> None:
    urls = {"database": "postgresql+psycopg://broker@db/broker", "state": "postgres://broker@db/broker"}
    url = urls[name] = f"{urls[name].partition('://')[0]}://{rest}"
    file = write_settings(tmp_path / "s.yaml", **provider_settings(tmp_path, "http://localhost:1"))
    with pytest.raises(SettingsError, match=f"--{name}: carries a password") as caught:
        settings.read({name: url}, file)
    assert "s3cret" not in str(caught.value)

    values = provider_settings(tmp_path, "http://localhost:1", **urls)
    del values["password"], values["upstreamPassword"], values["username"], values["upstreamUsername"]
    file = write_settings(tmp_path / "s.yaml", **values, anonymous=True)
    assert "s3cret" not in repr(settings.read({}, file))
    file.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600") as caught:
        settings.read({}, file)
    assert "s3cret" not in str(caught.value)


def test_a_url_without_a_password_may_be_read_by_others(tmp_path: Path) -> None:
    more = {"database": "postgresql+psycopg://broker@db/x", "state": "postgres://broker@db/x"}
    values = provider_settings(tmp_path, "http://localhost:1", **more)
    del values["password"], values["upstreamPassword"], values["username"], values["upstreamUsername"]
    file = write_settings(tmp_path / "s.yaml", **values, anonymous=True)
    file.chmod(0o644)

    assert settings.read({}, file).database.endswith("/x")


def test_a_consumer_must_say_whom_it_believes(tmp_path: Path) -> None:
    for consumer in (
        {"id": "a.b", "namespaces": ["shop"]},
        {"id": "a.b", "namespaces": ["shop"], "systemDomains": []},
    ):
        file = write_settings(
            tmp_path / "s.yaml", **consumer_settings(tmp_path, "http://localhost:1", consumer=consumer)
        )
        with pytest.raises(SettingsError, match=r"consumer\.system"):
            settings.read({}, file)


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        settings.read({}, tmp_path / "missing.yaml")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(SettingsError, match="no mapping"):
        settings.read({}, tmp_path / "list.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"stack: caf\xe9")
    with pytest.raises(SettingsError, match=r"latin\.yaml cannot be read"):
        settings.read({}, tmp_path / "latin.yaml")
    with pytest.raises(SettingsError, match=r"--secrets: there is no folder .*/missing"):
        settings.read({}, None, tmp_path / "missing")


@pytest.mark.parametrize(
    "line", ['password: "s3cret', "password: 's3cret\n\ta: b", "password: *s3cret", "? s3cret\n:x"]
)
def test_a_file_that_is_no_yaml_is_named_without_what_is_in_it(tmp_path: Path, line: str) -> None:
    (tmp_path / "s.yaml").write_text(f"role: forward\n{line}\n")

    with pytest.raises(SettingsError, match=r"s\.yaml is no YAML from line [0-9]") as caught:
        settings.read({}, tmp_path / "s.yaml")
    assert "s3cret" not in str(caught.value)
