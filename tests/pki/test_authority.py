"""What an authority promises: certificates that OpenSSL accepts, keys that nobody else reads, nothing lost."""

from __future__ import annotations

import datetime
import itertools
import ssl
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pki import CertificateAuthority, Kind, LockedError, PkiError, Purpose, Reason, RootState, Status, store
from tests.pki.conftest import Clock
from tests.pki.handshake import handshake

PROVIDER = "istio.data.example"
CONSUMER = "client.shop.example"
REASONS = (
    Reason.UNSPECIFIED,
    Reason.KEY_COMPROMISE,
    Reason.AFFILIATION_CHANGED,
    Reason.SUPERSEDED,
    Reason.CESSATION,
    Reason.PRIVILEGE_WITHDRAWN,
)


def folders(authority: CertificateAuthority) -> tuple[Path, Path]:
    """A provider's and a consumer's folder."""
    return authority.issue_server(PROVIDER).folder, authority.issue_client(CONSUMER).folder


def leaf(folder: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())


def test_the_two_sides_shake_hands(authority: CertificateAuthority) -> None:
    server, client = folders(authority)
    assert handshake(server, client, PROVIDER) == "and hello"


def test_a_server_certificate_covers_the_bare_id_and_what_is_below(authority: CertificateAuthority) -> None:
    server, client = folders(authority)
    assert handshake(server, client, f"orders.{PROVIDER}") == "and hello"
    with pytest.raises(ssl.SSLError, match="Hostname mismatch"):
        handshake(server, client, "elsewhere.example")


def test_a_client_certificate_serves_nobody(authority: CertificateAuthority) -> None:
    _, client = folders(authority)
    with pytest.raises(ssl.SSLError, match="unsuitable certificate purpose"):
        handshake(client, client, CONSUMER)


def test_a_server_certificate_is_no_client(authority: CertificateAuthority) -> None:
    server, _ = folders(authority)
    with pytest.raises(ssl.SSLError, match="unsuitable certificate purpose"):
        handshake(server, server, PROVIDER)


def test_another_authority_vouches_for_nobody_here(authority: CertificateAuthority, tmp_path: Path) -> None:
    server, _ = folders(authority)
    other = CertificateAuthority.create(tmp_path / "other", "Example")
    with pytest.raises(ssl.SSLError, match="certificate verify failed"):
        handshake(server, other.issue_client(CONSUMER).folder, PROVIDER)


def test_two_organisations_trust_each_others_authority(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    other = CertificateAuthority.create(tmp_path / "other", "Other")
    server = authority.issue_server(PROVIDER, trust=other.certificate).folder
    client = other.issue_client(CONSUMER, trust=authority.certificate).folder
    assert handshake(server, client, PROVIDER) == "and hello"
    with pytest.raises(ssl.SSLError):
        handshake(server, authority.issue_client(CONSUMER).folder, PROVIDER)


def test_a_renewed_certificate_has_a_new_key_and_all_else_as_before(authority: CertificateAuthority) -> None:
    server = authority.issue_server(PROVIDER, names=["other.example"], lifetime=datetime.timedelta(days=7))
    before = leaf(server.folder)
    renewed = authority.renew(Kind.SERVER, PROVIDER)
    after = leaf(renewed.folder)
    assert after.public_key() != before.public_key()
    assert renewed.record.names == (PROVIDER, f"*.{PROVIDER}", "other.example")
    assert after.not_valid_after_utc - after.not_valid_before_utc == (
        before.not_valid_after_utc - before.not_valid_before_utc
    )
    assert [r.status for r in authority.index().records] == [Status.SUPERSEDED, Status.CURRENT]
    assert handshake(renewed.folder, authority.issue_client(CONSUMER).folder, PROVIDER) == "and hello"


def test_a_revoked_client_is_refused_and_others_are_not(authority: CertificateAuthority) -> None:
    server, client = folders(authority)
    other = authority.issue_client("client.desk.example").folder
    authority.revoke(authority.issued(Kind.CLIENT, CONSUMER).record.serial, Reason.KEY_COMPROMISE)
    with pytest.raises(ssl.SSLError, match="certificate revoked"):
        handshake(server, client, PROVIDER)
    assert handshake(server, other, PROVIDER) == "and hello"


def test_a_superseded_certificate_can_be_revoked_by_its_serial_number(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    server, client = folders(authority)
    stolen = tmp_path / "stolen"
    stolen.mkdir()
    for name, content in authority.issued(Kind.CLIENT, CONSUMER).files().items():
        (stolen / name).write_text(content)
    serial = authority.issued(Kind.CLIENT, CONSUMER).record.serial
    authority.renew(Kind.CLIENT, CONSUMER)
    authority.revoke(serial.upper())
    with pytest.raises(ssl.SSLError, match="certificate revoked"):
        handshake(server, stolen, PROVIDER)
    assert handshake(server, client, PROVIDER) == "and hello"


def test_revocation_lists_are_numbered_upwards_and_name_every_reason(authority: CertificateAuthority) -> None:
    serials = {}
    for reason in REASONS:
        serial = authority.issue_client(f"{reason.value.lower()}.example").record.serial
        authority.revoke(serial, reason)
        serials[int(serial, 16)] = reason
    first = x509.load_pem_x509_crl(authority.publish_crl().encode())
    second = x509.load_pem_x509_crl(authority.publish_crl().encode())
    number = x509.CRLNumber
    assert (
        first.extensions.get_extension_for_class(number).value.crl_number
        < second.extensions.get_extension_for_class(number).value.crl_number
    )
    assert {entry.serial_number for entry in second} == set(serials)
    for entry in second:
        reason = serials[entry.serial_number]
        if reason is Reason.UNSPECIFIED:
            assert not list(entry.extensions)
        else:
            assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value == reason


@pytest.mark.parametrize("lists", [False, True], ids=["without revocation lists", "with revocation lists"])
def test_a_rotation_never_breaks_a_connection(
    authority: CertificateAuthority, tmp_path: Path, *, lists: bool
) -> None:
    """Each side takes each step's folder at a time of its own, so every neighbouring pair of steps must work."""
    if lists:
        authority.publish_crl()
    folders(authority)
    steps = [lambda: None, authority.rotate_add, authority.rotate_leaves, authority.rotate_remove]
    copies: list[tuple[Path, Path]] = []
    for number, step in enumerate(steps):
        step()
        copies.append(
            (
                _copied(authority, "server", tmp_path / str(number)),
                _copied(authority, "client", tmp_path / str(number)),
            )
        )
    for (server, client), (next_server, next_client) in itertools.pairwise(copies):
        for pair in ((server, client), (server, next_client), (next_server, client)):
            assert handshake(*pair, PROVIDER) == "and hello"
    with pytest.raises(ssl.SSLError):
        handshake(copies[0][0], copies[3][1], PROVIDER)
    assert (authority.directory / "root-2.key").exists()
    assert not (authority.directory / "root-1.key").exists()


def _copied(authority: CertificateAuthority, kind: str, target: Path) -> Path:
    issued = authority.issued(Kind(kind), PROVIDER if kind == "server" else CONSUMER)
    folder = target / kind
    folder.mkdir(parents=True)
    for name, content in issued.files().items():
        (folder / name).write_text(content)
    return folder


def test_a_rotation_takes_its_steps_in_order(authority: CertificateAuthority) -> None:
    with pytest.raises(PkiError, match="rotate add"):
        authority.rotate_leaves()
    with pytest.raises(PkiError, match="rotate add"):
        authority.rotate_remove()
    authority.rotate_add()
    with pytest.raises(PkiError, match="rotate leaves"):
        authority.rotate_add()
    authority.rotate_leaves()
    assert [root.state for root in authority.index().roots] == [RootState.RETIRING, RootState.ISSUING]


def test_the_old_root_stays_while_something_in_use_needs_it(
    authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders(authority)
    authority.rotate_add()
    write_folder = store.write_folder

    def crash(folder: Path, files: Mapping[str, bytes]) -> None:
        if files["tls.crt"] != (folder / "tls.crt").read_bytes() and folder.name == f"client-{CONSUMER}":
            raise KeyboardInterrupt
        write_folder(folder, files)

    with monkeypatch.context() as patched:
        patched.setattr(store, "write_folder", crash)
        with pytest.raises(KeyboardInterrupt):
            authority.rotate_leaves()
    with pytest.raises(PkiError, match=f"in use: client {CONSUMER}"):
        authority.rotate_remove()
    authority.renew(Kind.CLIENT, CONSUMER)
    authority.rotate_remove()


CHANGES: Mapping[str, Callable[[CertificateAuthority], object]] = {
    "renew": lambda authority: authority.renew(Kind.SERVER, PROVIDER),
    "revoke": lambda authority: authority.revoke(
        authority.issued(Kind.CLIENT, "late.shop.example").record.serial
    ),
    "crl": lambda authority: authority.publish_crl(),
    "add": lambda authority: authority.rotate_add(),
    "leaves": lambda authority: authority.rotate_leaves(),
    "remove": lambda authority: authority.rotate_remove(),
}


@pytest.mark.parametrize(
    ("before", "change"),
    [
        ("", "renew"),
        ("", "revoke"),
        ("", "crl"),
        ("crl", "revoke"),
        ("", "add"),
        ("crl", "add"),
        ("crl add", "leaves"),
        ("crl add leaves", "remove"),
    ],
)
def test_what_an_interruption_left_undone_the_next_change_finishes(
    before: str, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for survived in itertools.count():
        authority = CertificateAuthority.create(tmp_path / f"{survived}", "Example")
        server, client = folders(authority)
        authority.issue_client("late.shop.example")
        for step in before.split():
            CHANGES[step](authority)
        with monkeypatch.context() as patched:
            interrupt_after(survived, patched)
            try:
                CHANGES[change](authority)
            except KeyboardInterrupt:
                pass
            else:
                assert survived > 1
                return
        authority.issue_client("next.shop.example")
        assert_files_follow(authority)
        assert handshake(server, client, PROVIDER) == "and hello"


def interrupt_after(survived: int, patched: pytest.MonkeyPatch) -> None:
    """Interrupt what comes after so many files were put into their place, or roots' keys deleted."""
    replace, unlink, done = Path.replace, Path.unlink, itertools.count()

    def interrupt() -> None:
        if next(done) >= survived:
            raise KeyboardInterrupt

    def replacing(file: Path, target: Path) -> Path:
        interrupt()
        return replace(file, target)

    def unlinking(file: Path, *, missing_ok: bool = False) -> None:
        if file.match("root-?.key"):
            interrupt()
        unlink(file, missing_ok=missing_ok)

    patched.setattr(Path, "replace", replacing)
    patched.setattr(Path, "unlink", unlinking)


def assert_files_follow(authority: CertificateAuthority) -> None:
    """All that the index says is so in the files, too."""
    index = authority.index()
    assert authority.certificate == "".join(root.certificate for root in index.trusted())
    for root in index.roots:
        key = authority.directory / f"root-{root.number}.key"
        assert key.exists() is (root.state is not RootState.REMOVED)
    lists = (authority.directory / "ca.crl").read_text() if index.crl else None
    assert (lists or "").count("BEGIN") == (len(index.trusted()) if index.crl else 0)
    for record in index.records:
        if record.status is Status.REVOKED:
            revoked = x509.load_pem_x509_crl((lists or "").encode())
            assert revoked.get_revoked_certificate_by_serial_number(int(record.serial, 16)) is not None
        if record.status is not Status.CURRENT:
            continue
        files = authority.issued(record.kind, record.id).files()
        private = serialization.load_pem_private_key(files["tls.key"].encode(), None)
        certificate = x509.load_pem_x509_certificate(files["tls.crt"].encode())
        assert certificate.public_key() == private.public_key()
        assert (files["tls.crt"], files["ca.crt"]) == (record.certificate, authority.certificate)
        assert files.get("ca.crl") == lists


def test_files_are_private(authority: CertificateAuthority) -> None:
    folders(authority)
    authority.publish_crl()
    authority.rotate_add()
    authority.rotate_leaves()
    modes = {
        path.relative_to(authority.directory): stat.S_IMODE(path.lstat().st_mode)
        for path in [authority.directory, *authority.directory.rglob("*")]
        if not path.is_symlink()
    }
    files = {name for name in modes if (authority.directory / name).is_file()}
    assert len(files) > 10
    assert {modes[name] for name in files} == {0o600}
    assert {modes[name] for name in modes.keys() - files} == {0o700}


def test_keys_are_ecdsa_p256_unless_asked_otherwise(authority: CertificateAuthority) -> None:
    server, _ = folders(authority)
    for file in (server / "tls.key", authority.directory / "root-1.key"):
        key = serialization.load_pem_private_key(file.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        assert key.curve.name == "secp256r1"


def test_an_authority_that_others_may_read_is_not_opened(authority: CertificateAuthority) -> None:
    key = authority.directory / "root-1.key"
    key.chmod(0o640)
    with pytest.raises(PkiError, match="mode 640"):
        CertificateAuthority.open(authority.directory)
    key.chmod(0o600)
    authority.directory.chmod(0o750)
    with pytest.raises(PkiError, match="mode 750"):
        CertificateAuthority.open(authority.directory)
    authority.directory.chmod(0o700)
    issued = folders(authority)[0] / "tls.key"
    issued.chmod(0o644)
    with pytest.raises(PkiError, match=r"tls\.key has mode 644"):
        CertificateAuthority.open(authority.directory)


def test_nothing_is_replaced_unasked(authority: CertificateAuthority) -> None:
    before = authority.certificate
    with pytest.raises(PkiError, match="--force"):
        CertificateAuthority.create(authority.directory, "Example")
    server, _ = folders(authority)
    served = (server / "tls.crt").read_text()
    with pytest.raises(PkiError, match="--force"):
        authority.issue_server(PROVIDER)
    assert (authority.certificate, (server / "tls.crt").read_text()) == (before, served)


def test_a_replaced_authority_is_moved_aside(authority: CertificateAuthority) -> None:
    before = authority.certificate
    replaced = CertificateAuthority.create(authority.directory, "Example", force=True)
    assert replaced.certificate != before
    (aside,) = authority.directory.parent.glob("ca.replaced-*")
    assert CertificateAuthority.open(aside).certificate == before


def test_an_authority_that_is_being_changed_is_not_replaced(authority: CertificateAuthority) -> None:
    with store.locked(authority.directory), pytest.raises(LockedError, match="another process"):
        CertificateAuthority.create(authority.directory, "Example", force=True)
    assert [entry.name for entry in authority.directory.parent.iterdir()] == [authority.directory.name]


def test_a_directory_with_other_things_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(PkiError, match="holds no certificate authority"):
        CertificateAuthority.create(tmp_path, "Example", force=True)
    assert (tmp_path / "notes").read_text() == "mine"


def test_two_writers_exclude_each_other(authority: CertificateAuthority) -> None:
    other = CertificateAuthority.open(authority.directory)
    with store.locked(authority.directory), pytest.raises(LockedError, match="another process"):
        other.issue_server(PROVIDER)
    assert not authority.index().records
    other.issue_server(PROVIDER)


def test_a_crash_between_index_and_files_leaves_the_old_certificate_in_use(
    authority: CertificateAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, client = folders(authority)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "symlink_to", crash)
        with pytest.raises(KeyboardInterrupt):
            authority.renew(Kind.SERVER, PROVIDER)
    assert handshake(server, client, PROVIDER) == "and hello"
    authority.renew(Kind.SERVER, PROVIDER)
    assert handshake(server, client, PROVIDER) == "and hello"
    assert len(authority.index().records) == 4
    assert len([entry for entry in server.parent.iterdir() if not entry.is_symlink()]) == 2


def test_a_hidden_file_of_somebody_else_stays(authority: CertificateAuthority) -> None:
    foreign = authority.directory / "issued" / ".directory"
    foreign.write_text("mine")
    folders(authority)
    assert foreign.read_text() == "mine"


def test_an_interrupted_creation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CertificateAuthority, "_publish", crash)
    with pytest.raises(KeyboardInterrupt):
        CertificateAuthority.create(tmp_path / "ca", "Example")
    assert not list(tmp_path.iterdir())


def test_a_leaf_never_outlives_its_authority(tmp_path: Path) -> None:
    short = CertificateAuthority.create(tmp_path / "ca", "Example", lifetime=datetime.timedelta(days=30))
    with pytest.raises(PkiError, match="outlive"):
        short.issue_server(PROVIDER)
    short.issue_server(PROVIDER, lifetime=datetime.timedelta(days=29))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "localhost",
        "Data.example",
        "data.example.",
        "*.*.example",
        "a b.example",
        "10.0.0.1",
        "-a.example",
    ],
)
def test_what_is_no_host_name_is_refused(authority: CertificateAuthority, name: str) -> None:
    with pytest.raises(PkiError, match="no host name"):
        authority.issue_server(name)
    assert not authority.index().records


def test_trust_with_a_private_key_is_refused(authority: CertificateAuthority) -> None:
    key = (authority.directory / "root-1.key").read_text()
    with pytest.raises(PkiError, match="private key") as refused:
        authority.issue_server(PROVIDER, trust=authority.certificate + key)
    assert key.splitlines()[1] not in str(refused.value)


def test_an_empty_file_of_trust_is_refused_and_not_passed_over(authority: CertificateAuthority) -> None:
    authority.issue_server(PROVIDER, trust=authority.certificate)
    with pytest.raises(PkiError, match="no PEM certificates"):
        authority.renew(Kind.SERVER, PROVIDER, trust="")
    with pytest.raises(PkiError, match="no PEM revocation lists"):
        authority.renew(Kind.SERVER, PROVIDER, trust_crl="")


def test_a_subject_that_a_cluster_makes_too_long_is_refused(tmp_path: Path) -> None:
    mesh = CertificateAuthority.create(tmp_path / "mesh", "x" * 60, purpose=Purpose.MESH)
    with pytest.raises(PkiError, match="longer than the 64 bytes"):
        mesh.issue_mesh("prod-eu")
    assert not mesh.index().records


def test_what_is_unknown_or_revoked_already_is_said(authority: CertificateAuthority) -> None:
    with pytest.raises(PkiError, match="never issued"):
        authority.revoke("abc")
    with pytest.raises(PkiError, match="no server certificate"):
        authority.renew(Kind.SERVER, PROVIDER)
    serial = authority.issue_client(CONSUMER).record.serial
    authority.revoke(serial)
    with pytest.raises(PkiError, match="was revoked at"):
        authority.revoke(serial)


def test_a_revoked_id_can_be_issued_again(authority: CertificateAuthority) -> None:
    server, client = folders(authority)
    authority.revoke(authority.issued(Kind.CLIENT, CONSUMER).record.serial)
    authority.issue_client(CONSUMER)
    assert handshake(server, client, PROVIDER) == "and hello"


def test_an_expired_certificate_is_renewed(authority: CertificateAuthority, clock: Clock) -> None:
    clock.pass_by(days=-100)
    server, client = folders(authority)
    with pytest.raises(ssl.SSLError, match="expired"):
        handshake(server, client, PROVIDER)
    clock.pass_by(days=100)
    authority.renew(Kind.SERVER, PROVIDER)
    authority.renew(Kind.CLIENT, CONSUMER)
    assert handshake(server, client, PROVIDER) == "and hello"


def test_a_mesh_and_a_federation_have_authorities_of_their_own(
    authority: CertificateAuthority, tmp_path: Path
) -> None:
    with pytest.raises(PkiError, match="--purpose mesh"):
        authority.issue_mesh("prod-eu")
    mesh = CertificateAuthority.create(tmp_path / "mesh", "Example mesh", purpose=Purpose.MESH)
    with pytest.raises(PkiError, match="--purpose federation"):
        mesh.issue_server(PROVIDER)
    assert not mesh.index().records


@pytest.mark.parametrize(("purpose", "below"), [(Purpose.FEDERATION, 0), (Purpose.MESH, 1)])
def test_a_root_says_how_many_authorities_may_stand_below_it(
    purpose: Purpose, below: int, tmp_path: Path
) -> None:
    made = CertificateAuthority.create(tmp_path / "ca", "Example", purpose=purpose)
    root = x509.load_pem_x509_certificate(made.certificate.encode())
    constraints = root.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value) == (True, x509.BasicConstraints(True, below))


def test_the_intermediate_of_a_mesh_chains_to_its_root(tmp_path: Path) -> None:
    mesh = CertificateAuthority.create(tmp_path / "mesh", "Example mesh", purpose=Purpose.MESH)
    files = mesh.issue_mesh("prod-eu").files()
    assert set(files) == {"ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem"}
    (signer,) = x509.load_pem_x509_certificates(files["ca-cert.pem"].encode())
    (root,) = x509.load_pem_x509_certificates(files["root-cert.pem"].encode())
    signer.verify_directly_issued_by(root)
    assert x509.load_pem_x509_certificates(files["cert-chain.pem"].encode()) == [signer, root]
    constraints = signer.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (constraints.ca, constraints.path_length) == (True, 0)


def test_a_damaged_index_is_said(authority: CertificateAuthority) -> None:
    (authority.directory / "index.json").write_text("{}")
    with pytest.raises(PkiError, match="damaged"):
        CertificateAuthority.open(authority.directory)
