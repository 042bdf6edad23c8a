"""Mutual TLS between two proxies, each a process of its own."""

from __future__ import annotations

import datetime
import re
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from broker import cli, logs
from lab.ports import free_ports
from tests.broker import service_broker
from tests.broker.chain import PASSWORD, PLAIN, USER, common, wait_until, write_settings
from tests.broker.service_broker import ServiceBroker

HEADERS = {"X-Broker-API-Version": "2.17"}


def certificates(folder: Path) -> None:
    """`ca.pem`, and a certificate for 127.0.0.1 that it signed, `tls.pem` with `key.pem`."""
    now = datetime.datetime.now(datetime.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("ca", "proxy")]
    for index, file in enumerate(("ca.pem", "tls.pem")):
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[index])
            .issuer_name(names[0])
            .public_key(keys[index].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=index == 0, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
            )
        )
        signed = builder.sign(keys[0], hashes.SHA256())
        (folder / file).write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        keys[1].private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )


@pytest.fixture
def proxies(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """URLs of a plain proxy and of the one behind it, which asks for a client certificate."""
    certificates(tmp_path)
    plain, secure = (f"127.0.0.1:{port}" for port in free_ports(2))
    pem = {name: str(tmp_path / f"{name}.pem") for name in ("ca", "tls", "key")}
    with ExitStack() as stack:
        broker = ServiceBroker().start()
        stack.callback(broker.stop)
        behind = {"tlsCertificate": pem["tls"], "tlsKey": pem["key"], "tlsClientCa": pem["ca"]}
        before = {"upstreamCa": pem["ca"], "upstreamCertificate": pem["tls"], "upstreamKey": pem["key"]}
        own = {"upstreamUsername": service_broker.USER, "upstreamPassword": service_broker.PASSWORD}
        for listen, upstream, more in (
            (secure, broker.url, {**behind, **own}),
            (plain, f"https://{secure}", before),
        ):
            folder = tmp_path / listen.rpartition(":")[2]
            folder.mkdir()
            values = common(folder, upstream, role="forward", listen=listen, **more)
            settings = write_settings(folder / "settings.yaml", **values)
            command = [sys.executable, "-m", "broker", "serve", "--settings", str(settings)]
            child = subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2])
            stack.callback(child.wait, 30)
            stack.callback(child.terminate)

        def through() -> bool:
            try:
                url = f"http://{plain}/info"
                return httpx.get(url, auth=(USER, PASSWORD), verify=PLAIN, trust_env=False).status_code == 200
            except httpx.HTTPError:
                return False

        wait_until(through, "both proxies serve", 180)
        yield f"http://{plain}", f"https://{secure}"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"upstreamCa": "none.pem"}, r"upstream_ca \(.*/none\.pem\): .* No such file"),
        ({"upstreamCa": "key.pem"}, r"upstream_ca \(.*/key\.pem\): "),
        (
            {"upstreamCertificate": "ca.pem", "upstreamKey": "key.pem"},
            r"upstream_certificate .*, upstream_key ",
        ),
        ({"tlsCertificate": "none.pem", "tlsKey": "key.pem"}, r"tls_certificate .*/none\.pem.*No such file"),
        ({"tlsCertificate": "ca.pem", "tlsKey": "key.pem"}, r"tls_certificate .*, tls_key "),
    ],
)
def test_a_file_that_is_no_use_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    files: dict[str, str],
    said: str,
) -> None:
    certificates(tmp_path)
    pem = {name: str(tmp_path / file) for name, file in files.items()}
    file = write_settings(
        tmp_path / "settings.yaml", **common(tmp_path, "https://127.0.0.1:1", role="forward", **pem)
    )
    monkeypatch.setattr(logs, "configure", lambda: None)
    monkeypatch.setattr(sys, "argv", ["broker", "serve", "--settings", str(file)])

    with pytest.raises(SystemExit) as ended:
        cli.main()

    assert ended.value.code == cli.USAGE
    assert re.search(said, capsys.readouterr().err)


def test_proxies_know_each_other_by_certificate(proxies: tuple[str, str], tmp_path: Path) -> None:
    plain, secure = proxies

    answer = httpx.get(f"{plain}/v2/catalog", auth=(USER, PASSWORD), headers=HEADERS, trust_env=False)
    assert answer.status_code == 200

    with pytest.raises(httpx.HTTPError):
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        httpx.get(f"{secure}/info", auth=(USER, PASSWORD), verify=context, trust_env=False)
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{secure}/info", auth=(USER, PASSWORD), trust_env=False)
