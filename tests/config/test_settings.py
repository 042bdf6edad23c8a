"""How the running stack's keys become a Stack."""

from __future__ import annotations

import json

import pulumi
import pytest

from config import settings

STACK = {
    "meshbridge:cluster": {"render": True},
    "meshbridge:provider": {"systemDomain": "istio.data.example"},
}


def configure(values: dict[str, object], secrets: list[str]) -> None:
    """What the engine hands to a program: structured values as JSON, plain ones as text."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    pulumi.runtime.set_all_config(texts, secrets)


def test_the_keys_of_the_project_are_read_and_others_are_not() -> None:
    configure({**STACK, "aws:region": "eu-central-1"}, [])
    assert settings.load().provider is not None


def test_a_misspelt_key_is_an_error_without_a_traceback() -> None:
    configure({**STACK, "meshbridge:provder": {}}, [])
    with pytest.raises(
        pulumi.RunError, match=r"provder: \[hidden\] is not a known key .* did you mean 'provider'"
    ):
        settings.load()


def test_a_misspelt_namespace_is_an_error() -> None:
    configure({**STACK, "meshbrige:upstreams": []}, [])
    with pytest.raises(
        pulumi.RunError, match=r"meshbrige:upstreams: \[hidden\] .* write 'meshbridge:upstreams'"
    ):
        settings.load()


def test_a_kubeconfig_in_the_clear_is_refused_without_showing_it() -> None:
    configure({**STACK, "meshbridge:kubeconfig": "users: [hunter2]"}, [])
    with pytest.raises(pulumi.RunError, match="is not encrypted") as refused:
        settings.load()
    assert "hunter2" not in str(refused.value)


def test_what_is_wrong_beside_the_vocabulary_comes_in_the_same_message() -> None:
    configure({**STACK, "meshbridge:kubeconfig": "users: []", "meshbridge:provder": {}}, [])
    with pytest.raises(pulumi.RunError, match="is refused, 2 findings") as refused:
        settings.load()
    assert "is not encrypted" in str(refused.value)
    assert "did you mean 'provider'" in str(refused.value)


def test_an_encrypted_kubeconfig_is_no_part_of_the_vocabulary() -> None:
    values = {**STACK, "meshbridge:cluster": {"kubeconfigSecret": True}, "meshbridge:kubeconfig": "users: []"}
    configure(values, ["meshbridge:kubeconfig"])
    assert settings.load().cluster.kubeconfig_secret


def test_a_kubeconfig_that_is_not_there_is_refused_with_the_remedy() -> None:
    configure({**STACK, "meshbridge:cluster": {"kubeconfigSecret": True}}, [])
    with pytest.raises(
        pulumi.RunError, match=r"cluster\.kubeconfigSecret: true .*config set --secret kubeconfig"
    ):
        settings.load()


def test_a_kubeconfig_that_nothing_reads_is_refused() -> None:
    """The context would be looked for in the user's own file, where another cluster may have it."""
    values = {**STACK, "meshbridge:cluster": {"context": "prod"}, "meshbridge:kubeconfig": "users: []"}
    configure(values, ["meshbridge:kubeconfig"])
    with pytest.raises(pulumi.RunError, match=r"kubeconfig: \[hidden\] is read by nothing"):
        settings.load()


CARRIED = {
    "meshbridge:cluster": {"context": "prod"},
    "meshbridge:provider": {"systemDomain": "istio.data.example", "certificate": {"stackSecret": "data"}},
}
DATA = {"tls.crt": "certificate", "tls.key": "hunter2", "ca.crt": "authority"}


def test_a_carried_certificate_is_the_data_of_its_secret() -> None:
    configure({**CARRIED, "meshbridge:certificate-data": DATA}, ["meshbridge:certificate-data"])
    assert settings.certificate_secrets(settings.load()) == {"data": DATA}


def test_a_certificate_in_the_clear_is_refused_without_showing_it() -> None:
    configure({**CARRIED, "meshbridge:certificate-data": DATA}, [])
    with pytest.raises(pulumi.RunError, match=r"certificate-data: \[hidden\] is not encrypted") as refused:
        settings.load()
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("secret", "words"),
    [
        (None, "names no secret of this stack"),
        ("hunter2", "is not a certificate's data"),
        ({**DATA, "more": "x"}, "is not a certificate's data"),
        ({"tls.key": ["hunter2"]}, "is not a certificate's data"),
    ],
)
def test_a_carried_certificate_that_cannot_be_read_is_refused_without_showing_it(
    secret: object, words: str
) -> None:
    values = CARRIED if secret is None else {**CARRIED, "meshbridge:certificate-data": secret}
    configure(values, ["meshbridge:certificate-data"])
    with pytest.raises(pulumi.RunError, match=words) as refused:
        settings.certificate_secrets(settings.load())
    assert "provider.certificate.stackSecret" in str(refused.value)
    assert "python -m pki store" in str(refused.value)
    assert "hunter2" not in str(refused.value)


MESH = {
    "meshbridge:cluster": {"context": "prod", "meshCa": {"stackSecret": "mesh"}},
    "meshbridge:certificate-mesh": {"ca-cert.pem": "certificate", "ca-key.pem": "hunter2"},
}


def test_a_mesh_s_authority_is_the_data_of_its_secret() -> None:
    configure(MESH, ["meshbridge:certificate-mesh"])
    assert settings.certificate_secrets(settings.load()) == {"mesh": MESH["meshbridge:certificate-mesh"]}


@pytest.mark.parametrize(
    ("secret", "words"), [(None, "names no secret"), ({"a": 1}, "is not a certificate's data")]
)
def test_a_mesh_s_authority_that_cannot_be_read_is_refused(secret: object, words: str) -> None:
    values = {key: value for key, value in MESH.items() if key == "meshbridge:cluster"}
    if secret is not None:
        values["meshbridge:certificate-mesh"] = secret
    configure(dict(values), ["meshbridge:certificate-mesh"])
    with pytest.raises(pulumi.RunError, match=rf"cluster\.meshCa\.stackSecret.*{words}"):
        settings.certificate_secrets(settings.load())
