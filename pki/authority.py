"""A certificate authority in a directory.

```
DIRECTORY/             mode 700, files 600
  index.json           the roots and every certificate ever issued
  ca.crt  ca.crl       what peers are to trust, and (once asked for) what they are to refuse
  root-1.key           key of the first root; a rotation adds root-2.key and in the end removes root-1.key
  issued/server-ID/    tls.crt, tls.key, ca.crt, ca.crl: the keys of the Secret that Istio reads
  issued/client-ID/    the same
  issued/mesh-NAME/    ca-cert.pem, ca-key.pem, root-cert.pem, cert-chain.pem: the Secret `cacerts`
```

Each change holds the directory's lock and writes the index before the files that follow from it: nothing is ever in use
that the index does not know. What an interrupted change left undone, the next one finishes first.
"""

from __future__ import annotations

import contextlib
import datetime
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pydantic import ValidationError

from certificates import mesh
from certificates.material import CERTIFICATE, CRL, KEY, TRUST
from pki import profile, store
from pki.errors import PkiError
from pki.index import Index, Kind, Purpose, Reason, Record, Root, RootState, Status
from pki.profile import KeyType, PrivateKey

INDEX = "index.json"
ISSUED = "issued"

ROOT_LIFETIME = datetime.timedelta(days=3650)
LEAF_LIFETIME = datetime.timedelta(days=90)
MESH_LIFETIME = datetime.timedelta(days=730)
CRL_LIFETIME = datetime.timedelta(days=90)
"""Defaults. A revocation list that expired refuses everyone, hence no shorter than the certificates it is rotated with."""

ROOM = 4
"""Bytes of a root's subject behind the authority's name: a space and the root's number."""

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*\.(?![0-9]+$){_LABEL}")
_NAME = re.compile(_LABEL)

Clock = Callable[[], datetime.datetime]


@dataclass(frozen=True)
class Issued:
    """A certificate with the folder that holds it and its key."""

    record: Record
    folder: Path

    def files(self) -> dict[str, str]:
        """The contents of the folder by file name: the data of the Secret. It holds the private key."""
        return {file.name: file.read_text(encoding="ascii") for file in sorted(self.folder.iterdir())}


class CertificateAuthority:
    """The authority in one directory. clock: what time it is, as an aware datetime."""

    def __init__(self, directory: Path, clock: Clock | None = None) -> None:
        self.directory = directory
        self._clock = clock or _now

    @classmethod
    def create(
        cls,
        directory: Path,
        name: str,
        *,
        purpose: Purpose = Purpose.FEDERATION,
        key_type: KeyType = KeyType.EC_P256,
        lifetime: datetime.timedelta = ROOT_LIFETIME,
        crl_lifetime: datetime.timedelta = CRL_LIFETIME,
        force: bool = False,
        clock: Clock | None = None,
    ) -> CertificateAuthority:
        """A new authority. With `force`, one that is there is moved to `<directory>.replaced-<time>`.

        Raises PkiError when the directory is not empty, LockedError when another process is changing it.
        """
        _require(bool(name.strip()), f"{name!r} is no name.", "Say who runs the authority.")
        longest = profile.MAX_COMMON_NAME - ROOM
        _require(
            len(name.encode()) <= longest,
            f"{name!r} is longer than {longest} bytes, and a subject has no room for more.",
            "Shorten it.",
        )
        _require_lifetime(lifetime)
        _require_lifetime(crl_lifetime)
        directory = directory.absolute()
        replaced = _to_replace(directory, force=force)
        directory.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
        try:
            made = cls(building, clock)
            (building / ISSUED).mkdir(mode=store.PRIVATE_DIRECTORY)
            index = Index(
                name=name,
                purpose=purpose,
                key_type=key_type,
                lifetime_seconds=int(lifetime.total_seconds()),
                crl_lifetime_seconds=int(crl_lifetime.total_seconds()),
                roots=(),
            )
            made._publish(made._with_new_root(index, RootState.ISSUING))
            with store.locked(directory) if replaced else contextlib.nullcontext():
                if replaced:
                    stamp = made._clock().strftime("%Y%m%dT%H%M%S%fZ")
                    directory.rename(directory.with_name(f"{directory.name}.replaced-{stamp}"))
                building.rename(directory)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        return cls(directory, clock)

    @classmethod
    def open(cls, directory: Path, *, clock: Clock | None = None) -> CertificateAuthority:
        """The authority in `directory`. Raises PkiError when there is none, or others may read its keys."""
        opened = cls(directory.absolute(), clock)
        opened.index()
        store.require_private(opened.directory)
        index = opened.index()
        for root in index.trusted():
            store.require_private(opened._key_file(root.number))
        for record in index.records:
            key = opened._folder(record.kind, record.id) / _key_name(record.kind)
            if record.status is Status.CURRENT and key.exists():
                store.require_private(key)
        return opened

    def index(self) -> Index:
        """What the authority knows now."""
        file = self.directory / INDEX
        try:
            return Index.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            raise PkiError(
                f"{self.directory} holds no certificate authority.",
                f"Create one: python -m pki create {self.directory} --name ORGANISATION",
            ) from None
        except ValidationError as error:
            raise PkiError(f"{file} is damaged: {error}", "Restore it from a backup.") from error

    @property
    def certificate(self) -> str:
        """PEM of the roots that peers are to trust: one, or two during a rotation."""
        return (self.directory / TRUST).read_text(encoding="ascii")

    def issued(self, kind: Kind, identity: str) -> Issued:
        """The certificate in use under that id. Raises PkiError when there is none."""
        record = self.index().current(kind, identity)
        if record is None:
            raise PkiError(
                f"{self.directory} has no {kind} certificate {identity!r} in use.",
                f"See: python -m pki list {self.directory}",
            )
        return Issued(record, self._folder(kind, identity))

    def issue_server(
        self,
        provider_id: str,
        *,
        names: Iterable[str] = (),
        wildcard: bool = True,
        lifetime: datetime.timedelta = LEAF_LIFETIME,
        key_type: KeyType = KeyType.EC_P256,
        trust: str | None = None,
        trust_crl: str | None = None,
        force: bool = False,
    ) -> Issued:
        """A provider's certificate. Its names are the id itself, which consumers look for, `*.<id>` and `names`.

        trust, trust_crl: PEM of the consumers' authorities, where these are not this one. force: replace the
        certificate in use. Raises PkiError when there is one, or a name is no host name.
        """
        wanted = [provider_id, *([f"*.{provider_id}"] if wildcard else []), *names]
        request = _Request(Kind.SERVER, provider_id, wanted, lifetime, key_type, trust, trust_crl)
        return self._issue(request, force=force)

    def issue_client(
        self,
        consumer_id: str,
        *,
        names: Iterable[str] = (),
        lifetime: datetime.timedelta = LEAF_LIFETIME,
        key_type: KeyType = KeyType.EC_P256,
        trust: str | None = None,
        trust_crl: str | None = None,
        force: bool = False,
    ) -> Issued:
        """A consumer's certificate, by whose id providers know it. Otherwise as `issue_server`; trust: of the
        providers."""
        request = _Request(
            Kind.CLIENT, consumer_id, [consumer_id, *names], lifetime, key_type, trust, trust_crl
        )
        return self._issue(request, force=force)

    def issue_mesh(
        self,
        cluster: str,
        *,
        lifetime: datetime.timedelta = MESH_LIFETIME,
        key_type: KeyType = KeyType.EC_P256,
        force: bool = False,
    ) -> Issued:
        """The intermediate authority of one cluster's istiod. Only an authority for meshes signs these."""
        return self._issue(_Request(Kind.MESH, cluster, [], lifetime, key_type), force=force)

    def renew(
        self,
        kind: Kind,
        identity: str,
        *,
        lifetime: datetime.timedelta | None = None,
        trust: str | None = None,
        trust_crl: str | None = None,
    ) -> Issued:
        """A new certificate with a new key, otherwise as the one in use, which is superseded but not revoked."""
        with self._changing():
            old = self.issued(kind, identity).record
            request = _renewal(old)
            request = _Request(
                kind,
                identity,
                request.names,
                lifetime or request.lifetime,
                request.key_type,
                old.trust if trust is None else trust,
                old.trust_crl if trust is None and trust_crl is None else trust_crl,
            )
            _check(request)
            return self._sign(self.index(), request)

    def revoke(self, serial: str, reason: Reason = Reason.UNSPECIFIED) -> Record:
        """Revoke a certificate and publish the revocation list. serial: hexadecimal, as in the index.

        Raises PkiError when it is unknown or revoked already.
        """
        wanted = serial.lower().replace(":", "").lstrip("0")
        with self._changing():
            index = self.index()
            record = next((r for r in index.records if r.serial == wanted), None)
            if record is None:
                raise PkiError(
                    f"{self.directory} never issued the serial number {serial!r}.",
                    f"See: python -m pki list {self.directory} --all",
                )
            if record.status is Status.REVOKED:
                raise PkiError(
                    f"Serial number {serial} ({record.kind} {record.id}) was revoked at {record.revoked_at:%F %T} UTC.",
                    "It stays revoked; there is nothing to do.",
                )
            revoked = record.model_copy(
                update={"status": Status.REVOKED, "revoked_at": self._clock(), "reason": reason}
            )
            self._publish(index.with_record(revoked).model_copy(update={"crl": True}))
            return revoked

    def publish_crl(self, lifetime: datetime.timedelta | None = None) -> str:
        """Sign new revocation lists, one for each trusted root, and put them beside every certificate; their PEM.

        From the first time on, each change renews them. lifetime: of these and all further ones.
        """
        with self._changing():
            index = self.index().model_copy(update={"crl": True})
            if lifetime is not None:
                _require_lifetime(lifetime)
                index = index.model_copy(update={"crl_lifetime_seconds": int(lifetime.total_seconds())})
            self._publish(index)
            return (self.directory / CRL).read_text(encoding="ascii")

    def rotate_add(self) -> Root:
        """First step of a rotation: a new root, which peers learn to trust beside the old one. It signs nothing yet."""
        with self._changing():
            index = self.index()
            self._require_step(index, {RootState.ISSUING}, "add")
            index = self._with_new_root(index, RootState.NEXT)
            self._publish(index)
            return index.roots[-1]

    def rotate_leaves(self) -> tuple[Issued, ...]:
        """Second step: the new root signs from now on, and signs every certificate in use anew."""
        with self._changing():
            index = self.index()
            self._require_step(index, {RootState.ISSUING, RootState.NEXT}, "leaves")
            old, new = index.issuing(), next(r for r in index.roots if r.state is RootState.NEXT)
            index = index.with_root(old.model_copy(update={"state": RootState.RETIRING}))
            index = index.with_root(new.model_copy(update={"state": RootState.ISSUING}))
            self._publish(index)
            in_use = [r for r in index.records if r.status is Status.CURRENT]
            return tuple(self._sign(self.index(), _renewal(record)) for record in in_use)

    def rotate_remove(self, *, force: bool = False) -> Root:
        """Last step: peers forget the old root, and its key is deleted. Refused while a certificate in use is its,
        but with `force`."""
        with self._changing():
            index = self.index()
            self._require_step(index, {RootState.ISSUING, RootState.RETIRING}, "remove")
            old = next(r for r in index.roots if r.state is RootState.RETIRING)
            left = [
                f"{r.kind} {r.id}"
                for r in index.records
                if r.root == old.number and _in_use(r, self._clock())
            ]
            if left and not force:
                raise PkiError(
                    f"Root {old.number} still vouches for certificates in use: {', '.join(left)}.",
                    "Renew them (python -m pki renew), or give --force: their peers then refuse them.",
                )
            removed = old.model_copy(update={"state": RootState.REMOVED})
            self._publish(index.with_root(removed))
            return removed

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Hold the lock, and first finish what an interrupted change left undone."""
        with store.locked(self.directory):
            index = self._without_lost_keys(self.index())
            if not self._is_published(index):
                self._publish(index)
            yield

    def _without_lost_keys(self, index: Index) -> Index:
        """With what lies in the folders in use again, where an interruption lost the key of what replaces it."""
        for record in index.records:
            file = self._folder(record.kind, record.id) / _certificate_name(record.kind)
            if record.status is not Status.CURRENT or not file.exists():
                continue
            text = file.read_bytes()
            there = next((r for r in index.records if r.certificate.encode() == text), record)
            if there != record:
                index = index.with_record(record.model_copy(update={"status": Status.SUPERSEDED}))
                if there.status is Status.SUPERSEDED:
                    index = index.with_record(there.model_copy(update={"status": Status.CURRENT}))
        return index

    def _is_published(self, index: Index) -> bool:
        """Whether the index is saved and every file is as it demands."""
        if index != self.index() or any(self._key_file(root.number).exists() for root in index.removed()):
            return False
        try:
            numbers = _crl_numbers((self.directory / CRL).read_bytes()) if index.crl else []
            if _bundle(index) != self.certificate:
                return False
        except (OSError, ValueError, x509.ExtensionNotFound):
            return False
        return numbers == [root.crl_number for root in index.trusted() if index.crl] and all(
            self._contents(index, record, key) == {f.name: f.read_bytes() for f in folder.iterdir()}
            for record, folder, key in self._in_folders(index)
        )

    def _in_folders(self, index: Index) -> Iterator[tuple[Record, Path, bytes]]:
        """Each certificate in use whose key is there (it need not be, when the key went into a stack's secrets), with
        its folder and the key."""
        for record in index.records:
            folder = self._folder(record.kind, record.id)
            key = folder / _key_name(record.kind)
            if record.status is Status.CURRENT and key.exists():
                yield record, folder, key.read_bytes()

    def _issue(self, request: _Request, *, force: bool) -> Issued:
        _check(request)
        with self._changing():
            index = self.index()
            if index.current(request.kind, request.identity) is not None and not force:
                raise PkiError(
                    f"{self.directory} has a {request.kind} certificate {request.identity!r} in use.",
                    "Renew it (python -m pki renew), or give --force to issue it with other properties.",
                )
            return self._sign(index, request)

    def _sign(self, index: Index, request: _Request) -> Issued:
        wanted = Purpose.MESH if request.kind is Kind.MESH else Purpose.FEDERATION
        _require(
            index.purpose is wanted,
            f"{self.directory} is an authority for the {index.purpose}, it signs no {request.kind} certificates.",
            f"Create another authority: python -m pki create DIRECTORY --purpose {wanted}",
        )
        now, root = self._clock(), index.issuing()
        end = x509.load_pem_x509_certificate(root.certificate.encode()).not_valid_after_utc
        if now + request.lifetime > end:
            raise PkiError(
                f"The certificate would outlive the authority, which ends at {end:%F %T} UTC.",
                "Choose fewer --days, or rotate the authority (python -m pki rotate add).",
            )
        key, validity = profile.new_key(request.key_type), profile.Validity(now, request.lifetime)
        signer = self._signer(root)
        if request.kind is Kind.MESH:
            name = f"{index.name} {request.identity}"
            _require(
                len(name.encode()) <= profile.MAX_COMMON_NAME,
                f"{name!r} is longer than the {profile.MAX_COMMON_NAME} bytes of a subject.",
                "Shorten the name of the cluster.",
            )
            certificate = profile.intermediate(name, key, signer, validity)
        else:
            usage = profile.SERVER_USAGE if request.kind is Kind.SERVER else profile.CLIENT_USAGE
            certificate = profile.leaf(list(dict.fromkeys(request.names)), usage, key, signer, validity)
        record = _record(request, root.number, certificate)
        old = index.current(request.kind, request.identity)
        if old is not None:
            index = index.with_record(old.model_copy(update={"status": Status.SUPERSEDED}))
        index = index.with_record(record)
        self._save(index)
        folder = self._folder(record.kind, record.id)
        store.write_folder(folder, self._contents(index, record, profile.key_pem(key)))
        return Issued(record, folder)

    def _contents(self, index: Index, record: Record, key: bytes) -> dict[str, bytes]:
        trust = record.trust or _bundle(index)
        if record.kind is Kind.MESH:
            root = next(r for r in index.roots if r.number == record.root)
            return {
                mesh.CA_CERTIFICATE: record.certificate.encode(),
                mesh.MESH_CA_KEY: key,
                mesh.CHAIN: (record.certificate + root.certificate).encode(),
                mesh.ROOT: trust.encode(),
            }
        files = {CERTIFICATE: record.certificate.encode(), KEY: key, TRUST: trust.encode()}
        if record.trust_crl is not None:
            files[CRL] = record.trust_crl.encode()
        elif index.crl and record.trust is None:
            files[CRL] = (self.directory / CRL).read_bytes()
        return files

    def _publish(self, index: Index) -> None:
        """Save the index and bring up to date what follows from it: trust, revocation lists, both beside every
        certificate in use whose key is there, and which roots' keys are."""
        lists = b""
        if index.crl:
            for root in index.trusted():
                numbered = root.model_copy(update={"crl_number": root.crl_number + 1})
                index = index.with_root(numbered)
                lists += profile.pem(self._revocation_list(index, numbered))
        self._save(index)
        store.write(self.directory / TRUST, _bundle(index).encode())
        if index.crl:
            store.write(self.directory / CRL, lists)
        for record, folder, key in self._in_folders(index):
            store.write_folder(folder, self._contents(index, record, key))
        for root in index.removed():
            self._key_file(root.number).unlink(missing_ok=True)

    def _revocation_list(self, index: Index, root: Root) -> x509.CertificateRevocationList:
        lifetime = datetime.timedelta(seconds=index.crl_lifetime_seconds)
        revoked = [
            (int(r.serial, 16), r.revoked_at, x509.ReasonFlags(r.reason))
            for r in index.records
            if r.root == root.number and r.revoked_at is not None
        ]
        validity = profile.Validity(self._clock(), lifetime)
        return profile.revocation_list(self._signer(root), revoked, root.crl_number, validity)

    def _with_new_root(self, index: Index, state: RootState) -> Index:
        number = len(index.roots) + 1
        key = profile.new_key(index.key_type)
        path_length = 1 if index.purpose is Purpose.MESH else 0
        lifetime = datetime.timedelta(seconds=index.lifetime_seconds)
        certificate = profile.root(
            f"{index.name} {number}", key, profile.Validity(self._clock(), lifetime), path_length
        )
        store.write(self._key_file(number), profile.key_pem(key))
        root = Root(number=number, state=state, certificate=profile.pem(certificate).decode())
        return index.with_root(root)

    def _require_step(self, index: Index, states: set[RootState], step: str) -> None:
        found = {root.state for root in index.trusted()}
        following = {
            frozenset({RootState.ISSUING}): "add",
            frozenset({RootState.ISSUING, RootState.NEXT}): "leaves",
            frozenset({RootState.ISSUING, RootState.RETIRING}): "remove",
        }[frozenset(found)]
        _require(
            found == states,
            f"`rotate {step}` is not the next step of the rotation in {self.directory}.",
            f"The next one is: python -m pki rotate {following} {self.directory}",
        )

    def _signer(self, root: Root) -> profile.Signer:
        return profile.Signer(
            x509.load_pem_x509_certificate(root.certificate.encode()), self._key(root.number)
        )

    def _key(self, number: int) -> PrivateKey:
        file = self._key_file(number)
        try:
            key = serialization.load_pem_private_key(file.read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise PkiError(f"{file} cannot be read: {error}", "Restore it from a backup.") from error
        if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
            raise PkiError(f"{file} holds neither an EC nor an RSA key.", "Restore it from a backup.")
        return key

    def _key_file(self, number: int) -> Path:
        return self.directory / f"root-{number}.key"

    def _folder(self, kind: Kind, identity: str) -> Path:
        return self.directory / ISSUED / f"{kind}-{identity}"

    def _save(self, index: Index) -> None:
        store.write(self.directory / INDEX, index.model_dump_json(indent=2, exclude_none=True).encode())


@dataclass(frozen=True)
class _Request:
    kind: Kind
    identity: str
    names: Sequence[str]
    lifetime: datetime.timedelta
    key_type: KeyType
    trust: str | None = None
    trust_crl: str | None = None


def _key_name(kind: Kind) -> str:
    return mesh.MESH_CA_KEY if kind is Kind.MESH else KEY


def _certificate_name(kind: Kind) -> str:
    return mesh.CA_CERTIFICATE if kind is Kind.MESH else CERTIFICATE


def _renewal(record: Record) -> _Request:
    lifetime = record.not_after - record.not_before - profile.CLOCK_SKEW
    return _Request(
        record.kind, record.id, record.names, lifetime, record.key_type, record.trust, record.trust_crl
    )


def _record(request: _Request, root: int, certificate: x509.Certificate) -> Record:
    return Record(
        serial=f"{certificate.serial_number:x}",
        root=root,
        kind=request.kind,
        id=request.identity,
        names=tuple(dict.fromkeys(request.names)),
        key_type=request.key_type,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        certificate=profile.pem(certificate).decode(),
        trust=request.trust,
        trust_crl=request.trust_crl,
    )


def _check(request: _Request) -> None:
    _require_lifetime(request.lifetime)
    if request.kind is Kind.MESH:
        _require(
            _NAME.fullmatch(request.identity) is not None,
            f"{request.identity!r} is no name of a cluster: lower-case letters, digits and '-'.",
            "Write for example 'prod-eu'.",
        )
    for name in request.names:
        _require(
            _HOST.fullmatch(name.removeprefix("*.")) is not None,
            f"{name!r} is no host name: at least two labels of lower-case letters, digits and '-'.",
            "Write for example 'istio.data.example'.",
        )
    if request.trust is not None:
        _require_pem(request.trust, x509.load_pem_x509_certificates, "certificates")
    if request.trust_crl is not None:
        _require(request.trust is not None, "Revocation lists of no authority.", "Give its certificate too.")
        _require_pem(request.trust_crl, _load_lists, "revocation lists")


def _require_pem(text: str, load: Callable[[bytes], object], what: str) -> None:
    _require(
        "PRIVATE KEY" not in text, "What peers are to trust holds a private key.", "Give certificates only."
    )
    try:
        load(text.encode())
    except ValueError as error:
        raise PkiError(f"What peers are to trust holds no PEM {what}: {error}", "Give PEM files.") from error


def _load_lists(text: bytes) -> Mapping[int, x509.CertificateRevocationList]:
    end = b"-----END X509 CRL-----"
    blocks = [block + end for block in text.split(end)[:-1]]
    if not blocks:
        raise ValueError("no 'X509 CRL' block")
    return {number: x509.load_pem_x509_crl(block) for number, block in enumerate(blocks)}


def _crl_numbers(text: bytes) -> list[int]:
    lists = _load_lists(text).values()
    return [found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for found in lists]


def _bundle(index: Index) -> str:
    return "".join(root.certificate for root in index.trusted())


def _in_use(record: Record, now: datetime.datetime) -> bool:
    return record.status is Status.CURRENT and record.valid_at(now)


def _to_replace(directory: Path, *, force: bool) -> bool:
    """Whether an authority is there and may be replaced. Raises PkiError when anything is there that may not."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return False
    _require(
        (directory / INDEX).is_file(),
        f"{directory} exists and holds no certificate authority.",
        "Name a new directory.",
    )
    _require(
        force,
        f"{directory} holds a certificate authority already.",
        "Name another directory, or give --force to move it aside.",
    )
    return True


def _require_lifetime(lifetime: datetime.timedelta) -> None:
    _require(lifetime > datetime.timedelta(), "The lifetime is not positive.", "Give at least one day.")


def _require(condition: bool, problem: str, remedy: str) -> None:
    if not condition:
        raise PkiError(problem, remedy)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
