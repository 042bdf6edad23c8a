"""The commands that make and end certificates."""

from __future__ import annotations

import datetime
import sys
from typing import Annotated

import typer
from rich.table import Table

from pki.authority import CRL_LIFETIME, LEAF_LIFETIME, MESH_LIFETIME, ROOT_LIFETIME, CertificateAuthority
from pki.commands.output import (
    LONGEST,
    Days,
    Directory,
    Force,
    Json,
    Trust,
    TrustCrl,
    described,
    lifetime,
    opened,
    show_issued,
    text_of,
    write_json,
    write_table,
)
from pki.index import Kind, Purpose, Reason, Status
from pki.profile import KeyType

KeyTypeOption = Annotated[KeyType, typer.Option(help="Algorithm and size of the key.")]
Names = Annotated[list[str] | None, typer.Option("--name", help="A further DNS name; may be repeated.")]
KindArgument = Annotated[Kind, typer.Argument(help="What the certificate is for.")]
Identity = Annotated[str, typer.Argument(metavar="ID", help="Its provider id, consumer id, or cluster name.")]


def create(
    directory: Directory,
    *,
    name: Annotated[str, typer.Option(help="Who runs the authority; part of its subject.")],
    purpose: Annotated[Purpose, typer.Option(help="What it signs.")] = Purpose.FEDERATION,
    key_type: KeyTypeOption = KeyType.EC_P256,
    days: Days = None,
    crl_days: Annotated[
        int | None,
        typer.Option(help="Days until its revocation lists expire (default: 90).", min=1, max=LONGEST),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Move an authority that is there aside.")] = False,
    json: Json = False,
) -> None:
    """Create an authority: its root lives 3650 days unless --days says otherwise."""
    made = CertificateAuthority.create(
        directory,
        name,
        purpose=purpose,
        key_type=key_type,
        lifetime=lifetime(days, ROOT_LIFETIME),
        crl_lifetime=lifetime(crl_days, CRL_LIFETIME),
        force=force,
    )
    certificate = made.directory / "ca.crt"
    if json:
        write_json({"directory": str(made.directory), "certificate": str(certificate), "purpose": purpose})
    else:
        sys.stdout.write(f"Authority {name!r} in {made.directory}; peers trust {certificate}\n")


def server(
    directory: Directory,
    provider_id: Annotated[str, typer.Argument(help="The provider id: by default its system domain.")],
    *,
    name: Names = None,
    wildcard: Annotated[bool, typer.Option(help="Also name `*.<id>`.")] = True,
    key_type: KeyTypeOption = KeyType.EC_P256,
    days: Days = None,
    trust: Trust = None,
    trust_crl: TrustCrl = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Issue a provider's server certificate, for 90 days unless --days says otherwise."""
    issued = opened(directory).issue_server(
        provider_id,
        names=name or (),
        wildcard=wildcard,
        lifetime=lifetime(days, LEAF_LIFETIME),
        key_type=key_type,
        trust=text_of(trust),
        trust_crl=text_of(trust_crl),
        force=force,
    )
    show_issued([issued], as_json=json)


def client(
    directory: Directory,
    consumer_id: Annotated[str, typer.Argument(help="The consumer id.")],
    *,
    name: Names = None,
    key_type: KeyTypeOption = KeyType.EC_P256,
    days: Days = None,
    trust: Trust = None,
    trust_crl: TrustCrl = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Issue a consumer's client certificate, for 90 days unless --days says otherwise."""
    issued = opened(directory).issue_client(
        consumer_id,
        names=name or (),
        lifetime=lifetime(days, LEAF_LIFETIME),
        key_type=key_type,
        trust=text_of(trust),
        trust_crl=text_of(trust_crl),
        force=force,
    )
    show_issued([issued], as_json=json)


def mesh_ca(
    directory: Directory,
    cluster: Annotated[str, typer.Argument(help="Name of the cluster whose istiod gets it.")],
    *,
    key_type: KeyTypeOption = KeyType.EC_P256,
    days: Days = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Issue the intermediate authority of a mesh (the Secret `cacerts`), for 730 days unless --days says otherwise."""
    issued = opened(directory).issue_mesh(
        cluster, lifetime=lifetime(days, MESH_LIFETIME), key_type=key_type, force=force
    )
    show_issued([issued], as_json=json)


def renew(
    directory: Directory,
    kind: KindArgument,
    identity: Identity,
    *,
    days: Days = None,
    trust: Trust = None,
    trust_crl: TrustCrl = None,
    json: Json = False,
) -> None:
    """Issue a certificate anew, with a new key and as long as before; the old one stays valid until it expires."""
    issued = opened(directory).renew(
        kind,
        identity,
        lifetime=None if days is None else datetime.timedelta(days=days),
        trust=text_of(trust),
        trust_crl=text_of(trust_crl),
    )
    show_issued([issued], as_json=json)


def revoke(
    directory: Directory,
    serial: Annotated[str, typer.Argument(help="Serial number, hexadecimal (see `list --all`).")],
    reason: Annotated[Reason, typer.Option(help="Why.")] = Reason.UNSPECIFIED,
    json: Json = False,
) -> None:
    """Revoke a certificate and sign new revocation lists. They act once they are deployed to its peers."""
    authority = opened(directory)
    record = authority.revoke(serial, reason)
    if json:
        write_json({**described(record), "crl": str(authority.directory / "ca.crl")})
    else:
        sys.stdout.write(
            f"{record.kind} {record.id}: serial {record.serial} is revoked; deploy {authority.directory / 'ca.crl'} "
            "to its peers (it is beside every certificate in use already)\n"
        )


def crl(directory: Directory, days: Days = None) -> None:
    """Sign new revocation lists and write them to stdout. --days holds for all further ones too."""
    sys.stdout.write(opened(directory).publish_crl(None if days is None else datetime.timedelta(days=days)))


def list_(
    directory: Directory,
    every: Annotated[bool, typer.Option("--all", help="Also what is superseded or revoked.")] = False,
    json: Json = False,
) -> None:
    """List what was issued."""
    index = opened(directory).index()
    records = [r for r in index.records if every or r.status is Status.CURRENT]
    if json:
        roots = [root.model_dump(mode="json", exclude={"certificate"}) for root in index.roots]
        write_json(
            {
                "name": index.name,
                "purpose": index.purpose,
                "roots": roots,
                "records": [described(r) for r in records],
            }
        )
        return
    table = Table("Kind", "Id", "Serial", "Root", "Until (UTC)", "Status")
    for record in records:
        until = f"{record.not_after:%F %T}"
        table.add_row(record.kind, record.id, record.serial, str(record.root), until, record.status)
    write_table(table)
