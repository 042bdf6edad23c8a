"""The provider as the engine talks to it, over a real connection, without a cluster."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import empty_pb2

from lab.providers.plugin import Severity
from lab.providers.protocol import plugin_pb2, provider_pb2
from lab.providers.values import UNKNOWN, Object, Secret, encode
from tests.lab.providers.conftest import URN, Client, Listener, Renderer

CLOSED = "http://127.0.0.1:1"
"""A server that refuses connections."""


def config_map(name: Any = "a", data: Any = "x", **metadata: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "demo", **metadata},
        "data": {"key": data},
    }


def gateway(*hosts: Any) -> Object:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "a", "namespace": "demo"},
        "spec": {"servers": [{"hosts": list(hosts), "port": {"number": 443}}]},
    }


def unreachable(client: Client) -> None:
    config = f"""
        {{"current-context": "x", "clusters": [{{"name": "c", "cluster": {{"server": "{CLOSED}"}}}}],
          "contexts": [{{"name": "x", "context": {{"cluster": "c"}}}}], "users": []}}"""
    client.configure(kubeconfig=config)


def refusal(caught: pytest.ExceptionInfo[grpc.RpcError]) -> str:
    error = caught.value
    assert isinstance(error, grpc.Call)
    assert error.code() == grpc.StatusCode.UNKNOWN
    return str(error.details())


def test_the_process_introduces_itself(client: Client) -> None:
    handshake = client.call(
        "Handshake", provider_pb2.ProviderHandshakeRequest(), provider_pb2.ProviderHandshakeResponse
    )
    assert handshake.accept_secrets
    assert not handshake.accept_outputs
    info = client.call("GetPluginInfo", empty_pb2.Empty(), plugin_pb2.PluginInfo)
    assert info.version.count(".") == 2
    schema = client.call("GetSchema", provider_pb2.GetSchemaRequest(), provider_pb2.GetSchemaResponse).schema
    assert info.version in schema
    with pytest.raises(grpc.RpcError) as caught:
        client.call("Invoke", provider_pb2.InvokeRequest(), provider_pb2.InvokeResponse)
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_check_completes_kind_name_and_namespace(client: Client, rendered: Renderer) -> None:
    checked, failures = client.check({**config_map(), "metadata": {"name": "a"}})
    assert (checked, failures) == (config_map(namespace="default"), {})
    urn = URN.format(token="core/v1:ConfigMap", name="resource")
    reply = client.call("Check", provider_pb2.CheckRequest(urn=urn), provider_pb2.CheckResponse)
    assert reply.inputs["kind"] == "ConfigMap"
    assert reply.inputs["metadata"]["name"].startswith("resource-")


def test_check_leaves_cluster_scoped_objects_without_a_namespace(client: Client, rendered: Renderer) -> None:
    namespace: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "demo"}}
    assert client.check(namespace) == (namespace, {})


def test_a_default_namespace_can_be_set(client: Client, tmp_path: Path) -> None:
    client.configure(renderYamlToDirectory=str(tmp_path), namespace="shop")
    checked, _ = client.check({**gateway("a"), "metadata": {"name": "a"}})
    assert checked["metadata"] == {"name": "a", "namespace": "shop"}


def test_an_unnamed_object_keeps_the_name_it_was_given(client: Client, rendered: Renderer) -> None:
    unnamed: Object = {**config_map(), "metadata": {"namespace": "demo"}}
    first, _ = client.check(unnamed, randomSeed=b"seed")
    assert client.check(unnamed, first)[0] == first
    assert client.check(unnamed, randomSeed=b"seed")[0] == first
    options = provider_pb2.CheckRequest.AutonamingOptions
    proposed, _ = client.check(unnamed, autonaming=options(proposed_name="better", mode=options.ENFORCE))
    assert _metadata(proposed)["name"] == "better"
    _, failures = client.check(unnamed, autonaming=options(mode=options.DISABLE))
    assert "autonaming is disabled" in failures["metadata.name"]


def _metadata(obj: Object) -> Object:
    metadata = obj["metadata"]
    assert isinstance(metadata, dict)
    return metadata


@pytest.mark.parametrize(
    ("inputs", "place", "said"),
    [
        ({**config_map(), "metadata": {"generateName": "a-"}}, "metadata.name", "generateName"),
        ({**config_map(), "metadata": "a"}, "metadata", "must be an object"),
    ],
)
def test_check_refuses_what_cannot_be_an_object(
    client: Client, rendered: Renderer, inputs: Object, place: str, said: str
) -> None:
    _, failures = client.check(inputs)
    assert said in failures[place]


@pytest.mark.parametrize("token", ["helm.sh/v3:Release", "yaml/v2:ConfigGroup"])
def test_check_says_what_only_the_official_plugin_can(client: Client, rendered: Renderer, token: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        client.call(
            "Check",
            provider_pb2.CheckRequest(urn=URN.format(token=token, name="x"), news=encode({})),
            provider_pb2.CheckResponse,
        )
    assert "official plugin" in refusal(caught)


def test_check_keeps_secrets_and_unknowns_where_they_are(client: Client, rendered: Renderer) -> None:
    inputs = config_map(data=Secret("x"), labels={"a": UNKNOWN})
    assert client.check(inputs) == (inputs, {})
    named_later = config_map(name=UNKNOWN)
    assert client.check(named_later) == (named_later, {})


def test_a_secrets_plain_text_is_stored_as_secret_data(client: Client, rendered: Renderer) -> None:
    secret: Object = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "a", "namespace": "demo"},
        "stringData": {"password": "hunter2"},
    }
    checked, _ = client.check(secret)
    encoded = base64.b64encode(b"hunter2").decode()
    assert checked["data"] == Secret({"password": encoded})
    assert "stringData" not in checked
    _, state = client.create(checked)
    assert state["data"] == Secret({"password": encoded})
    assert client.diff(state, checked).changes == provider_pb2.DiffResponse.DIFF_NONE


def test_rendered_objects_come_change_and_go(client: Client, rendered: Renderer) -> None:
    file = "1-manifest/networking.istio.io_v1-gateway-demo-a.yaml"
    identifier, state = client.create(gateway("a.example"))
    assert identifier == "demo/a"
    assert rendered() == {file: gateway("a.example")}
    assert state.items() >= gateway("a.example").items()
    assert client.diff(state, gateway("a.example")).changes == provider_pb2.DiffResponse.DIFF_NONE

    changed = client.diff(state, gateway("b.example"))
    assert {path: found.kind for path, found in changed.detailedDiff.items()} == {
        "spec.servers[0].hosts[0]": provider_pb2.PropertyDiff.UPDATE
    }
    assert not changed.replaces
    state = client.update(state, gateway("b.example"))
    assert rendered() == {file: gateway("b.example")}
    assert client.read(identifier, state, gateway("b.example")) == (identifier, state, gateway("b.example"))

    client.delete(identifier, state)
    client.delete(identifier, state)
    assert rendered() == {}


def test_definitions_are_rendered_apart(client: Client, rendered: Renderer) -> None:
    name = "things.example.com"
    definition: Object = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": name},
    }
    assert client.create(definition)[0] == name
    assert list(rendered()) == [f"0-crd/apiextensions.k8s.io_v1-customresourcedefinition-default-{name}.yaml"]


def test_a_preview_renders_nothing(client: Client, rendered: Renderer) -> None:
    inputs = gateway("a.example", UNKNOWN)
    assert client.create(inputs, preview=True) == ("", inputs)
    _, state = client.create(gateway("a.example"))
    assert client.update(state, inputs, preview=True) == inputs
    assert list(rendered().values()) == [gateway("a.example")]


def test_a_secret_in_a_file_is_warned_of(client: Client, engine: Listener, rendered: Renderer) -> None:
    client.create(config_map(data=Secret("x")))
    assert [message for severity, message in engine.heard if severity is Severity.WARNING] == [
        message for _, message in engine.heard if "contains a secret value in plaintext" in message
    ]
    assert any("v1-configmap-demo-a.yaml" in message for _, message in engine.heard)
    assert list(rendered().values()) == [config_map()]


def test_a_folder_that_cannot_be_written_is_named(client: Client, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    client.configure(renderYamlToDirectory=str(tmp_path / "file"))
    with pytest.raises(grpc.RpcError) as caught:
        client.create(config_map())
    assert f"rendering to {tmp_path}/file failed" in refusal(caught)


def test_everything_is_rendered_again_where_that_is_asked_for(client: Client, tmp_path: Path) -> None:
    client.configure(renderYamlToDirectory=str(tmp_path), alwaysRender="true")
    _, state = client.create(config_map())
    assert client.diff(state, config_map()).changes == provider_pb2.DiffResponse.DIFF_SOME


def test_an_immutable_field_replaces_the_object_and_deletes_it_first(
    client: Client, rendered: Renderer
) -> None:
    _, state = client.create(config_map())
    found = client.diff(state, config_map(data="y"))
    assert list(found.replaces) == ["data.key"]
    assert found.detailedDiff["data.key"].kind == provider_pb2.PropertyDiff.UPDATE_REPLACE
    assert found.deleteBeforeReplace
    renamed = client.diff(state, config_map(name="b"))
    assert list(renamed.replaces) == ["metadata.name"]
    assert not renamed.deleteBeforeReplace
    assert client.diff(state, config_map(data="y"), "data").changes == provider_pb2.DiffResponse.DIFF_NONE


def test_a_removed_field_is_a_change_of_the_inputs(client: Client, rendered: Renderer) -> None:
    _, state = client.create(config_map(labels={"a": "b"}))
    found = client.diff(state, config_map()).detailedDiff["metadata.labels"]
    assert found.kind == provider_pb2.PropertyDiff.DELETE
    assert found.inputDiff


def test_what_the_server_added_is_no_change(client: Client, rendered: Renderer) -> None:
    inputs = config_map()
    _, state = client.create(inputs)
    live: Object = {
        **state,
        "metadata": {**_metadata(state), "uid": "1", "labels": {"theirs": "x"}},
        "status": {"x": 1},
    }
    assert client.diff(live, inputs).changes == provider_pb2.DiffResponse.DIFF_NONE


def test_an_unreachable_server_stops_changes_and_no_preview(client: Client, engine: Listener) -> None:
    unreachable(client)
    assert client.check(config_map()) == (config_map(), {})
    assert client.create(config_map(), preview=True) == ("", config_map())
    state: Object = {**config_map(), "__inputs": config_map()}
    for act in (
        lambda: client.create(config_map()),
        lambda: client.update(state, config_map(labels={"a": "b"})),
        lambda: client.read("demo/a", state, config_map()),
        lambda: client.delete("demo/a", state),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            act()
        assert "unreachable" in refusal(caught)
    assert any(CLOSED in message and "refused" in message for _, message in engine.heard)


def test_objects_of_a_lost_cluster_can_be_forgotten(
    client: Client, engine: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_K8S_DELETE_UNREACHABLE", "true")
    unreachable(client)
    state: Object = {**config_map(), "__inputs": config_map()}
    client.delete("demo/a", state)
    assert client.read("demo/a", state, config_map())[0] == ""
    monkeypatch.delenv("PULUMI_K8S_DELETE_UNREACHABLE")
    monkeypatch.setenv("PULUMI_K8S_SKIP_UPDATE_UNREACHABLE", "true")
    unreachable(client)
    assert client.read("demo/a", state, config_map()) == ("demo/a", state, config_map())


def test_a_missing_kubeconfig_is_an_unreachable_cluster(client: Client) -> None:
    client.configure(kubeconfig="/no/such/file")
    with pytest.raises(grpc.RpcError) as caught:
        client.create(config_map())
    said = refusal(caught)
    assert "configured Kubernetes cluster is unreachable" in said
    assert "/no/such/file" not in said or "neither" in said
    assert "neither the path of a file that exists nor the contents of a kubeconfig" in said


def test_cancelling_ends_all_waiting(client: Client, engine: Listener) -> None:
    client.call("Cancel", empty_pb2.Empty(), empty_pb2.Empty)
    assert engine.cancelled.is_set()
