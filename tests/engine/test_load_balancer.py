"""The ingress gateway's Service on a real API server, from one kind of load balancer to the next.

No controller runs here, so nothing gets an address, and nothing is waited for.
"""

from __future__ import annotations

from pathlib import Path

import tools
from cli.interruptions import FOLLOWS
from lab.api import Object
from lab.control_plane import ControlPlane
from tests.engine import stacks
from tests.engine.conftest import NewNamespace
from tests.engine.project import Project, Result, planned

CONTROLLER = "service.k8s.aws/nlb"


def services(plane: ControlPlane, namespace: str) -> dict[str, Object]:
    return {item["metadata"]["name"]: item for item in plane.api.items("v1", "Service", namespace)}


def begun(result: Result, kind: str) -> list[str]:
    """Operations on objects of a kind, in the order in which they were begun."""
    return [
        metadata["op"]
        for event in result.events
        if (metadata := event.get("resourcePreEvent", {}).get("metadata")) is not None
        and metadata["type"].endswith(f":{kind}")
    ]


def test_each_kind_of_load_balancer_is_made_before_the_last_goes(
    tmp_path: Path, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = f"{fresh()}-ingress"
    name = namespace.removesuffix("-ingress")
    project = Project(tmp_path / "project", tools.engine_environment())
    stack = project.stack("edge", stacks.provider(api_server.kubeconfig, name))
    try:
        stack.up().expect_success()
        (plain,) = services(api_server, namespace).values()
        assert plain["metadata"]["name"] == "provider-ingress"

        controlled = {"awsController": {"sourceRanges": ["192.0.2.0/24"]}}
        stack.configure(stacks.provider(api_server.kubeconfig, name, loadBalancer=controlled))
        assert planned(project, stack)["Service"].interruption == FOLLOWS
        done = stack.up().expect_success()
        assert begun(done, "Service") == ["create-replacement", "replace", "delete-replaced"]
        ((made, service),) = services(api_server, namespace).items()
        assert made == "provider-ingress-internet-facing"
        assert service["spec"]["loadBalancerClass"] == CONTROLLER
        assert "healthCheckNodePort" not in service["spec"]
        assert all("nodePort" not in port for port in service["spec"]["ports"])

        inside = {"awsController": {"scheme": "internal", "clientAddress": "proxy-protocol"}}
        stack.configure(stacks.provider(api_server.kubeconfig, name, loadBalancer=inside))
        assert begun(stack.up().expect_success(), "Service")[0] == "create-replacement"
        assert services(api_server, namespace).keys() == {"provider-ingress-internal"}
        deployment = api_server.api.get("apps/v1", "Deployment", "provider-ingress", namespace)
        assert deployment is not None
        assert "proxyProtocol" in str(deployment["spec"]["template"]["metadata"]["annotations"])
        assert stack.up().expect_success().operations == {}

        stack.configure(stacks.provider(api_server.kubeconfig, name, loadBalancer=inside, port=9443))
        plan = planned(project, stack)["Service"]
        assert (plan.operation, plan.interruption) == (
            "update",
            "the public port moves from 9000 to 9443; clients are cut until they use it",
        )
    finally:
        stack.destroy().expect_success()
