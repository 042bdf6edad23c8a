"""The federation's certificate authorities: those of the product, which `python -m pki` makes and keeps in directories.

Private keys lie there in files of mode 600, in directories of mode 700, and go with the lab.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509

from lab import pki
from lab.errors import LabError

REPOSITORY = Path(__file__).parents[1]
TIMEOUT = 300.0
"""Seconds that a command may take."""

Kind = Literal["server", "client"]


@dataclass(frozen=True)
class Authority:
    """An authority in a directory."""

    directory: Path

    @classmethod
    def create(cls, directory: Path, name: str) -> Authority:
        """A new authority. name: who runs it.

        Raises:
            LabError: the command failed, as with every method that runs one.
        """
        made = cls(directory)
        made.run("create", "--name", name)
        return made

    @property
    def file(self) -> Path:
        """The roots that peers trust, PEM: one, or two during a rotation."""
        return self.directory / "ca.crt"

    @property
    def pem(self) -> bytes:
        """The contents of `file`."""
        return self.file.read_bytes()

    def folder(self, kind: Kind, identity: str) -> Path:
        """Where the certificate in use under an id lies, as a stack's `certificate.directory` names it."""
        return self.directory / "issued" / f"{kind}-{identity}"

    def pair(self, kind: Kind, identity: str) -> pki.KeyPair:
        """The certificate in use under an id."""
        folder = self.folder(kind, identity)
        return pki.KeyPair((folder / "tls.crt").read_bytes(), (folder / "tls.key").read_bytes())

    def issue(self, kind: Kind, identity: str, peers: Authority, *names: str) -> None:
        """Issue a certificate, also for further names; its holder trusts the authority of its peers."""
        more = [argument for name in names for argument in ("--name", name)]
        self.run(kind, identity, *more, *peers._trusted())

    def renew(self, kind: Kind, identity: str, peers: Authority) -> None:
        """Issue a certificate anew; its holder trusts what the authority of its peers says now."""
        self.run("renew", kind, identity, *peers._trusted())

    def revoke(self, pair: pki.KeyPair) -> None:
        """Revoke a certificate. It is refused where the new list, beside `file`, has been deployed."""
        serial = x509.load_pem_x509_certificate(pair.certificate).serial_number
        self.run("revoke", f"{serial:x}")

    @property
    def roots(self) -> dict[int, str]:
        """State by number of the roots that are or were."""
        return {root["number"]: root["state"] for root in json.loads(self.run("list", "--json"))["roots"]}

    def signers(self) -> list[pki.Authority]:
        """The trusted roots, oldest first, for certificates that the authority itself would not issue."""
        keys = sorted(
            self.directory.glob("root-*.key"), key=lambda file: int(file.stem.removeprefix("root-"))
        )
        certificates = x509.load_pem_x509_certificates(self.pem)
        return [
            pki.Authority.load(certificate, key.read_bytes())
            for certificate, key in zip(certificates, keys, strict=True)
        ]

    def run(self, command: str, *arguments: str) -> str:
        """Run `python -m pki COMMAND`, of which each word of the command may be one, and return what it printed."""
        line = [sys.executable, "-m", "pki", *command.split(), str(self.directory), *arguments]
        try:
            done = subprocess.run(
                line, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=TIMEOUT
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"`pki {command}` for {self.directory} took over {TIMEOUT:.0f} s") from error
        if done.returncode != 0:
            raise LabError(f"`pki {command}` for {self.directory} failed: {done.stderr.strip()}")
        return done.stdout

    def _trusted(self) -> list[str]:
        lists = self.directory / "ca.crl"
        return [
            *("--trust", str(self.file)),
            *(("--trust-crl", str(lists)) if lists.exists() else ()),
        ]
