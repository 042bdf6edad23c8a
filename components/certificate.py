"""Certificate: the Secret with which a gateway proves who it is, checked before anything is touched."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pulumi

from components.component import Component
from components.resources import KubernetesObject
from config import Certificate as CertificateConfig
from config import Cluster, ConfigError, Finding
from config.certificate import PRIVATE_KEY, REQUIRED_KEYS, SECRET_KEYS
from routing import certificate

if TYPE_CHECKING:
    from certificates import Expectation, Problem


@dataclass(frozen=True)
class CertificateArgs:
    """The certificate of one gateway.

    key: where it stands in the configuration, for messages. secret, namespace: the Secret and where it lies. name: the id
    that the other side looks for. issuer: PEM of the authority that signed it, where that is not in its `ca.crt`.
    trust_elsewhere: another Secret brings the other side's authority. data: what the Secret is to hold, where the stack
    carries it.
    """

    key: str
    secret: str
    namespace: str
    name: str
    usage: certificate.Usage
    config: CertificateConfig
    cluster: Cluster
    issuer: str | None = None
    trust_elsewhere: bool = False
    data: Mapping[str, str] | None = field(default=None, repr=False)


class Certificate(Component):
    """The Secret of a gateway's certificate: out of the stack, or made by cert-manager. Private keys are secret Outputs.

    One that exists already needs no component.
    """

    prerequisites: tuple[KubernetesObject, ...]
    """What must exist before a server of the gateway does."""

    def __init__(self, name: str, args: CertificateArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        refuse_unfit([args])
        if args.config.cert_manager is not None:
            manifest = certificate.request(
                args.secret,
                args.namespace,
                name=args.name,
                usage=args.usage,
                config=args.config.cert_manager,
                cluster=args.cluster,
            )
            self.prerequisites = (self.child("request", manifest),)
        else:
            data = {key: pulumi.Output.secret(text) for key, text in (args.data or {}).items()}
            manifest = certificate.secret(args.secret, args.namespace, data)
            self.prerequisites = (self.child("secret", manifest),)
        self.register_outputs({})


def carried(
    key: str, config: CertificateConfig, secrets: Mapping[str, Mapping[str, str]]
) -> Mapping[str, str] | None:
    """The data of a Secret that the stack carries, None where it carries none.

    secrets: those of the stack, by name. Raises ConfigError when the directory cannot be read, or others may read the
    key in it.
    """
    if config.stack_secret is not None:
        return secrets[config.stack_secret]
    if config.directory is None:
        return None
    return read_files(key, Path(config.directory), SECRET_KEYS, REQUIRED_KEYS, private=PRIVATE_KEY)


@dataclass(frozen=True)
class TrustArgs:
    """Authorities that stand apart from a certificate.

    keys: where `ca.crt` and `ca.crl` stand in the configuration, for messages. warning_days: as for certificates.
    """

    keys: Mapping[str, str]
    authorities: str
    crl: str | None
    warning_days: int


def refuse_unfit(wanted: Iterable[CertificateArgs], trusted: Iterable[TrustArgs] = ()) -> None:
    """Judge the certificates and the authorities that the stack carries. Raises pulumi.RunError with every finding;
    warns of what will fail soon."""
    found = [
        *((f"{args.key}: {problem.key}", problem) for args in wanted for problem in _problems(args)),
        *((args.keys[problem.key], problem) for args in trusted for problem in _trust_problems(args)),
    ]
    refuse(found, "the certificate")


def refuse(found: Iterable[tuple[str, Problem]], source: str) -> None:
    """Raises pulumi.RunError with every problem, each under its key; warns of those that are none yet."""
    findings: list[Finding] = []
    for key, problem in found:
        finding = Finding(key, problem.value, problem.rule, problem.remedy)
        if problem.severity == "error":
            findings.append(finding)
        else:
            pulumi.log.warn(str(finding))
    if findings:
        raise pulumi.RunError(str(ConfigError(findings, source)))


def own_authority(key: str, spelled_out: str | None, args: CertificateArgs | None) -> str | None:
    """PEM of the CA that vouches for this side: as spelled out, else the one to which a certificate that the stack
    carries was found to lead. None where nothing is known of it.

    key: of the section, for messages. Raises ConfigError where `ca.crt` names others beside it: they may be the other
    side's, and whoever was handed them as this side's would let the other side pass for it.
    """
    if spelled_out is not None or args is None or args.data is None:
        return spelled_out
    from certificates import Material, own_authority  # noqa: PLC0415

    found = own_authority(Material.of(args.data), _expected(args))
    if found is None:
        return None
    anchor, others = found
    if others:
        rule = (
            f"is missing, and the `ca.crt` of {args.key} holds authorities beside that of its own certificate "
            f"({', '.join(others)}), which nobody may be told to take for this side's"
        )
        remedy = "set it to the CA of this side alone: its old and its new root while that is replaced"
        raise ConfigError([Finding(f"{key}.caCertificate", "null", rule, remedy)])
    return anchor


# Only a stack that carries certificates pays for the import of `cryptography`.


def _problems(args: CertificateArgs) -> Iterable[Problem]:
    if args.data is None:
        return ()
    from certificates import Material, check  # noqa: PLC0415

    return check(Material.of(args.data), _expected(args))


def _expected(args: CertificateArgs) -> Expectation:
    from certificates import Expectation, Usage  # noqa: PLC0415

    return Expectation(
        args.name,
        Usage(args.usage),
        _now(),
        issuer=args.issuer,
        trust_elsewhere=args.trust_elsewhere,
        warning=datetime.timedelta(days=args.config.warning_days),
    )


def _trust_problems(args: TrustArgs) -> Iterable[Problem]:
    from certificates import check_trust  # noqa: PLC0415

    return check_trust(args.authorities, args.crl, _now(), datetime.timedelta(days=args.warning_days))


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def read_files(
    key: str, directory: Path, names: Iterable[str], required: Collection[str], *, private: str
) -> Mapping[str, str]:
    """The files of a directory that a stack's key names, as far as they are there. private: the one with the key.

    Raises ConfigError when a required one is missing, one cannot be read, or others may read the private one.
    """
    found: dict[str, str] = {}
    for name in names:
        file = directory / name
        try:
            mode = file.stat().st_mode & 0o777
            if name == private and mode & 0o077:
                raise _unreadable(
                    key,
                    file,
                    f"has mode {mode:o}, so that others may read the key",
                    f"chmod 600 {file}",
                )
            found[name] = file.read_text(encoding="ascii")
        except FileNotFoundError as error:
            if name in required:
                raise _unreadable(key, file, "does not exist", "correct the directory") from error
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable(key, file, f"cannot be read ({error})", "correct it") from error
    return found


def _unreadable(key: str, file: Path, rule: str, remedy: str) -> ConfigError:
    return ConfigError([Finding(f"{key}.directory", str(file), rule, remedy)])
