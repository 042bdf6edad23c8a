"""The provider's own inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.providers.configuration import check_config, diff_config
from lab.providers.protocol import provider_pb2
from lab.providers.settings import Settings, parse
from lab.providers.values import UNKNOWN, Object, encode


def kubeconfig(server: str, user: str = "first") -> str:
    return json.dumps(
        {
            "current-context": "x",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "users": [{"name": "u", "user": {"token": user}}],
        }
    )


def failures(inputs: Object, **environment: str) -> dict[str, str]:
    reply = check_config(provider_pb2.CheckRequest(news=encode(inputs)), environment)
    return {failure.property: failure.reason for failure in reply.failures}


def test_rendering_and_applying_exclude_each_other() -> None:
    both: Object = {"renderYamlToDirectory": "out", "kubeconfig": "x", "context": "y"}
    assert set(failures(both)) == {"kubeconfig", "context"}
    assert failures({"renderYamlToDirectory": "out", "kubeconfig": "x"}, KUBECONFIG="x") == {}
    assert failures({"kubeconfig": UNKNOWN, "context": "y"}) == {}
    assert "requires" in failures({"alwaysRender": "true"})["alwaysRender"]


def replaced(old: dict[str, Any], new: dict[str, Any]) -> list[str] | None:
    reply = diff_config(provider_pb2.DiffRequest(olds=encode(old), news=encode(new)))
    return list(reply.replaces) if reply.changes == provider_pb2.DiffResponse.DIFF_SOME else None


def test_only_another_cluster_or_folder_moves_the_objects() -> None:
    one, two = kubeconfig("https://one"), kubeconfig("https://two")
    assert replaced({"kubeconfig": one}, {"kubeconfig": one}) is None
    assert replaced({"kubeconfig": one}, {"kubeconfig": kubeconfig("https://one", "renewed")}) == []
    assert replaced({"kubeconfig": one}, {"kubeconfig": two}) == ["kubeconfig"]
    assert replaced({"kubeconfig": one}, {"kubeconfig": UNKNOWN}) == ["kubeconfig"]
    assert replaced({"renderYamlToDirectory": "a"}, {"renderYamlToDirectory": "b"}) == [
        "renderYamlToDirectory"
    ]
    assert replaced({"namespace": "a"}, {"namespace": "b"}) == []


def test_a_cluster_identifier_decides_alone() -> None:
    one = {"kubeconfig": kubeconfig("https://one"), "clusterIdentifier": "a"}
    two = {"kubeconfig": kubeconfig("https://two"), "clusterIdentifier": "a"}
    assert replaced(one, two) == []
    assert replaced(one, {**two, "clusterIdentifier": "b"}) == ["clusterIdentifier"]


@pytest.mark.parametrize("on", ["true", True])
def test_inputs_come_as_text_or_as_they_are(on: str | bool) -> None:
    inputs: Object = {
        "kubeconfig": {"clusters": []},
        "namespace": "shop",
        "renderYamlToDirectory": "out",
        "upsertExistingObjects": on,
        "enableServerSideApply": "false",
    }
    assert parse(inputs, {}) == Settings(
        kubeconfig='{"clusters": []}',
        namespace="shop",
        render_directory=Path("out"),
        upsert=True,
        server_side_apply=False,
    )


def test_the_environment_stands_in_for_inputs_that_are_not_given() -> None:
    environment = {"PULUMI_K8S_ENABLE_PATCH_FORCE": "true", "PULUMI_K8S_UPSERT_EXISTING_OBJECTS": "false"}
    assert parse({}, environment) == Settings(patch_force=True)
    assert parse({"enablePatchForce": "false"}, environment) == Settings()
