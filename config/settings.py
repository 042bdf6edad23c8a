"""The only reader of `pulumi.Config`: the current stack's keys as a Stack."""

from __future__ import annotations

import difflib
import json
from typing import TYPE_CHECKING, Literal, TypeAlias

import pulumi
from pulumi.runtime.config import CONFIG, is_config_secret
from pydantic import TypeAdapter, ValidationError

from config.certificate import SECRET_PREFIX
from config.errors import HIDDEN, ConfigError, Finding, show
from config.stack import Stack, parse

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from config.certificate import Certificate

NAMESPACE = "meshbridge"
KUBECONFIG = "kubeconfig"


def load() -> Stack:
    """The configuration of the stack that runs now (`stacks/Pulumi.<stack>.yaml`).

    Raises pulumi.RunError, which the engine shows without a traceback, when a key is unknown, a value is wrong, or
    parts do not fit together.
    """
    source = f"stacks/Pulumi.{pulumi.get_stack()}.yaml"
    values, findings = _values()
    try:
        stack = parse(values, source)
    except ConfigError as error:
        raise pulumi.RunError(str(ConfigError([*findings, *error.findings], source))) from error
    findings += _kubeconfig(stack)
    if findings:
        raise pulumi.RunError(str(ConfigError(findings, source)))
    return stack


def kubeconfig_secret() -> pulumi.Output[str]:
    """Contents of the kubeconfig that the stack carries as the secret `meshbridge:kubeconfig`; `load` has seen that it does."""
    return pulumi.Config(NAMESPACE).require_secret(KUBECONFIG)


def certificate_secrets(stack: Stack) -> Mapping[str, Mapping[str, str]]:
    """The certificates that the stack carries as secrets, and the mesh's authority, by the name that `stackSecret` gives
    them, each as the data of its Secret. They hold private keys: they may go into secret Outputs and nowhere else.

    Raises pulumi.RunError when one is missing or is no such data.
    """
    found: dict[str, Mapping[str, str]] = {}
    findings: list[Finding] = []
    for where, name, data in _secrets_wanted(stack):
        text = CONFIG.get().get(f"{NAMESPACE}:{SECRET_PREFIX}{name}")
        try:
            if text is not None:
                found[name] = {str(key): pem for key, pem in data.validate_json(text).items()}
                continue
            rule = f"names no secret of this stack ({NAMESPACE}:{SECRET_PREFIX}{name})"
        except ValidationError:
            rule = "names a secret that is not a certificate's data (a JSON object of the files that `python -m pki` writes)"
        stack_name = pulumi.get_stack()
        remedy = f"write it: python -m pki store DIRECTORY --stack {stack_name} --secret {name}"
        findings.append(Finding(where, show(name), rule, remedy))
    if findings:
        raise pulumi.RunError(str(ConfigError(findings, f"stacks/Pulumi.{pulumi.get_stack()}.yaml")))
    return found


_SECRET_DATA = TypeAdapter(dict[Literal["tls.crt", "tls.key", "ca.crt", "ca.crl"], str])
_MESH_DATA = TypeAdapter(dict[str, str])
"""Its keys are judged with the rest of it (`certificates.check_mesh`)."""
_Data: TypeAlias = (
    TypeAdapter[dict[Literal["tls.crt", "tls.key", "ca.crt", "ca.crl"], str]] | TypeAdapter[dict[str, str]]
)


def _secrets_wanted(stack: Stack) -> Iterator[tuple[str, str, _Data]]:
    """Where each secret is referred to, its name, and what it holds."""
    certificates: dict[str, Certificate | None] = {}
    if stack.provider is not None:
        certificates["provider.certificate"] = stack.provider.certificate
    if stack.consumer is not None:
        certificates["consumer.certificate"] = stack.consumer.certificate
        for imported in stack.consumer.providers:
            certificates[f"consumer.providers[{imported.name}].certificate"] = imported.certificate
    for key, certificate in certificates.items():
        if certificate is not None and certificate.stack_secret is not None:
            yield f"{key}.stackSecret", certificate.stack_secret, _SECRET_DATA
    mesh_ca = stack.cluster.mesh_ca
    if mesh_ca is not None and mesh_ca.stack_secret is not None:
        yield "cluster.meshCa.stackSecret", mesh_ca.stack_secret, _MESH_DATA


def _values() -> tuple[Mapping[str, object], list[Finding]]:
    """The values of the vocabulary by their keys, and what is wrong with the keys beside them."""
    prefix = f"{NAMESPACE}:"
    values: dict[str, object] = {}
    findings: list[Finding] = []
    for key, text in CONFIG.get().items():
        if not key.startswith(prefix):
            findings += _misspelt(key)
            continue
        name = key.removeprefix(prefix)
        if name == KUBECONFIG or name.startswith(SECRET_PREFIX):
            if not is_config_secret(key):
                findings.append(
                    Finding(
                        name,
                        HIDDEN,
                        "is not encrypted",
                        f"set it with `pulumi config set --secret {name}`, and replace what stood in the clear",
                    )
                )
            continue
        values[name] = _structured(text)
    return values, findings


def _kubeconfig(stack: Stack) -> Iterator[Finding]:
    """A kubeconfig that is to be read and is not there, or the other way round."""
    key = f"{NAMESPACE}:{KUBECONFIG}"
    wanted, stored = stack.cluster.kubeconfig_secret, key in CONFIG.get()
    if wanted and not stored:
        yield Finding(
            "cluster.kubeconfigSecret",
            "true",
            f"asks for a secret that this stack does not have ({key})",
            f"store it: cat FILE | pulumi config set --secret {KUBECONFIG} --stack {pulumi.get_stack()}",
        )
    if stored and not wanted:
        yield Finding(
            KUBECONFIG,
            HIDDEN,
            "is read by nothing, so that the stack may reach another cluster than the one that it names",
            "set `cluster.kubeconfigSecret: true`, or remove it",
        )


def _misspelt(key: str) -> Iterator[Finding]:
    """A key of another namespace is somebody else's, unless it was to be ours."""
    namespace, _, name = key.partition(":")
    if difflib.get_close_matches(namespace.lower(), [NAMESPACE], cutoff=0.8):
        rule = f"is no key of {NAMESPACE!r}, so nothing would read it"
        yield Finding(key, HIDDEN, rule, f"write {f'{NAMESPACE}:{name}'!r}")


def _structured(text: str) -> object:
    """A value as Pulumi hands it over: structured ones are JSON, plain ones text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
