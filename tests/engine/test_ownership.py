"""What belongs to whom on a real API server: renamed resources, gateways with several stacks, namespaces."""

from __future__ import annotations

import copy
from typing import Any

from lab.control_plane import ControlPlane
from tests.authorities import authority
from tests.engine import stacks
from tests.engine.conftest import NewNamespace
from tests.engine.test_stacks import Deploy, deploy, engine, managed, versions

__all__ = ["deploy", "engine"]

RBAC = "rbac.authorization.k8s.io/v1"


def test_what_keeps_its_name_outlives_every_rename(
    deploy: Deploy, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    """The virtual IP, the trust anchor and the gateway's identity, when all around them is called something else."""
    namespace = fresh()
    config = stacks.consumer(api_server.kubeconfig, namespace, [stacks.imported(0, service="db")])
    consumer: dict[str, Any] = config["consumer"]
    consumer["providers"][0]["caCertificate"] = authority("providers")
    consumer["egressGateway"]["serviceAccount"] = "leaving"
    stack = deploy("consumer", config)
    stack.up().expect_success()
    egress = f"{namespace}-egress"
    objects = [
        ("Service", namespace, "db"),
        ("Secret", egress, "consumer-client-cacert"),
        ("ServiceAccount", egress, "leaving"),
    ]
    before = managed(api_server, namespace)

    consumer["providers"][0]["name"] = "other"
    consumer["egressGateway"]["name"] = "way-out"
    consumer["imports"][0] |= {"name": "orders", "provider": "other"}
    consumer["imports"][0]["endpoints"][0]["name"] = "primary"
    stack.configure(config)
    stack.up().expect_success()

    after = managed(api_server, namespace)
    for key in objects:
        assert after[key]["metadata"]["uid"] == before[key]["metadata"]["uid"]
    in_state = [r for r in stack.resources() if r["type"].startswith("kubernetes:")]
    assert len(after) == len(in_state) == len(before)
    assert stack.preview("--refresh", "--expect-no-changes").expect_success().operations == {}


def test_a_renamed_endpoint_is_replaced_under_its_former_name(
    deploy: Deploy, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    stack = deploy("provider", stacks.provider(api_server.kubeconfig, namespace))
    stack.up().expect_success()

    config = stacks.provider(api_server.kubeconfig, namespace)
    config["provider"]["exports"][0]["endpoints"][0] |= {"name": "first", "formerly": "main"}
    stack.configure(config)
    assert set(stack.up().expect_success().counts) == {"replace"}


def test_a_stack_that_adopts_a_gateway_leaves_its_owner_what_it_needs(
    deploy: Deploy, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    config = stacks.consumer(api_server.kubeconfig, namespace, [stacks.imported(0)])
    deploy("owner", config).up().expect_success()
    before = managed(api_server, namespace)

    adopting = copy.deepcopy(config)
    adopting["consumer"]["egressGateway"] = {"namespace": f"{namespace}-egress", "adopt": True}
    adopting["consumer"]["imports"] = [{**stacks.imported(1), "namespace": namespace}]
    first = deploy("first", adopting)
    first.up().expect_success()
    adopting["consumer"]["imports"] = [{**stacks.imported(2), "namespace": namespace}]
    second = deploy("second", adopting)
    second.up().expect_success()
    roles = {o["metadata"]["name"] for o in api_server.api.items(RBAC, "Role", f"{namespace}-egress")}
    assert len(roles) == 3

    third = deploy("third", config | {"consumer": adopting["consumer"]})
    refused = third.up()
    assert refused.code != 0
    assert "import-db2-main-owner" in refused.errors
    assert "immutable" in refused.errors
    for stack in (third, first, second):
        stack.destroy().expect_success()
    assert versions(managed(api_server, namespace)) == versions(before)


def test_a_namespace_that_was_there_is_neither_taken_over_nor_deleted(
    deploy: Deploy, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    api_server.create_namespace(f"{namespace}-egress")
    config = stacks.consumer(api_server.kubeconfig, namespace, [stacks.imported(0)])
    stack = deploy("consumer", config)

    previewed = stack.preview()
    assert previewed.code != 0
    assert f"createNamespace: namespace '{namespace}-egress' exists and was made by" in previewed.errors
    assert "Traceback" not in previewed.errors
    found = api_server.api.get("v1", "Namespace", f"{namespace}-egress")
    assert found is not None
    assert "annotations" not in found["metadata"]

    config["consumer"]["egressGateway"]["createNamespace"] = False
    stack.configure(config)
    stack.up().expect_success()
    stack.destroy().expect_success()
    assert api_server.api.get("v1", "Namespace", f"{namespace}-egress") is not None


def test_a_namespace_of_one_stack_is_not_made_by_another(
    deploy: Deploy, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    config = stacks.consumer(api_server.kubeconfig, namespace, [stacks.imported(0)])
    deploy("first", config).up().expect_success()
    before = managed(api_server, namespace)

    second = deploy("second", config)
    previewed = second.preview()
    assert previewed.code != 0
    assert f"namespace '{namespace}-egress' exists" in previewed.errors
    refused = second.up()
    assert refused.code != 0
    assert f"{namespace}-egress" in refused.errors
    assert "conflict" in refused.errors
    second.destroy().expect_success()
    assert versions(managed(api_server, namespace)) == versions(before)
