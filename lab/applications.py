"""Applications for the lab's clusters: the services that are exported, and the clients that use them. Pure.

Each function returns the objects of one application, its namespace first, for `ClusterAccess.apply`. What the image names
stand for is said in `lab.node.images`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lab.api import Object

PASSWORD = "orders-secret"  # noqa: S105 - of databases that live as long as the lab
"""Of the administrators of the databases: `postgres`, and MariaDB's `root`."""
HTTP_PORT, GRPC_PORT = 8080, 9090


def client(
    namespace: str, name: str, *, service_account: str = "default", sidecar: bool = True, replicas: int = 1
) -> list[Object]:
    """A Pod that does nothing but wait for commands; see `ClusterAccess.exec`."""
    return [
        _namespace(namespace, sidecar=sidecar),
        _account(namespace, service_account),
        _deployment(
            namespace,
            name,
            {"name": "app", "image": "client"},
            labels={"sidecar.istio.io/inject": "true" if sidecar else "false"},
            service_account=service_account,
            replicas=replicas,
        ),
    ]


def postgres(namespace: str, name: str, *, replicas: int = 1) -> list[Object]:
    """A PostgreSQL on port 5432, outside the mesh."""
    return _server(
        namespace,
        name,
        "postgres",
        {"tcp-postgres": 5432},
        ["pg_isready", "--host", "127.0.0.1", "--username", "postgres"],
        environment={"POSTGRES_PASSWORD": PASSWORD},
        replicas=replicas,
    )


def mariadb(namespace: str, name: str) -> list[Object]:
    """A MariaDB on port 3306, outside the mesh; the server speaks first."""
    # It is up when it answers, though it does not admit this user without a password.
    ping = ["mariadb-admin", "--host=127.0.0.1", "--user=root", "ping"]
    variables = {"MARIADB_ROOT_PASSWORD": PASSWORD}
    return _server(namespace, name, "mariadb", {"tcp-mysql": 3306}, ping, environment=variables)


def redis(namespace: str, name: str) -> list[Object]:
    """A Redis on port 6379, outside the mesh."""
    return _server(namespace, name, "redis", {"tcp-redis": 6379}, ["redis-cli", "ping"])


def echo(namespace: str, name: str, *, replicas: int = 1) -> list[Object]:
    """An application that answers with what it was asked, over HTTP/1.1 and gRPC, outside the mesh; see
    `lab/images/echo.py`."""
    ready = ["curl", "--silent", "--fail", f"http://127.0.0.1:{HTTP_PORT}/ready"]
    return _server(namespace, name, "echo", {"http": HTTP_PORT, "grpc": GRPC_PORT}, ready, replicas=replicas)


def ingress_gateway(namespace: str, name: str) -> list[Object]:
    """A platform's own ingress gateway, ports 80 and 443, as Istio's "Installing Gateways" has it; selected by `istio: <name>`."""
    labels = {"istio": name}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    metadata = {"name": name, "namespace": namespace}
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]}]
    ports = {"http": 80, "https": 443}
    gateway = _deployment(
        namespace,
        name,
        {"name": "istio-proxy", "image": "auto"},
        labels={**labels, "sidecar.istio.io/inject": "true"},
        service_account=name,
    )
    pod = gateway["spec"]["template"]
    pod["metadata"]["annotations"] = {"inject.istio.io/templates": "gateway"}
    pod["spec"]["securityContext"] = {
        "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]
    }
    return [
        _namespace(namespace, sidecar=False),
        _account(namespace, name),
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": role,
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        },
        gateway,
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "type": "LoadBalancer",
                "externalTrafficPolicy": "Local",
                "selector": labels,
                "ports": [{"name": key, "port": port, "targetPort": port} for key, port in ports.items()],
            },
        },
    ]


def _server(
    namespace: str,
    name: str,
    image: str,
    ports: Mapping[str, int],
    ready: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    replicas: int = 1,
) -> list[Object]:
    container = {
        "name": image,
        "image": image,
        "ports": [{"name": key, "containerPort": port} for key, port in ports.items()],
        "env": [{"name": key, "value": value} for key, value in (environment or {}).items()],
        "readinessProbe": {"exec": {"command": list(ready)}, "periodSeconds": 5, "timeoutSeconds": 5},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "selector": {"app": name},
            "ports": [{"name": key, "port": port, "targetPort": port} for key, port in ports.items()],
        },
    }
    labels = {"sidecar.istio.io/inject": "false"}
    return [
        _namespace(namespace, sidecar=False),
        service,
        _deployment(namespace, name, container, labels=labels, replicas=replicas),
    ]


def _namespace(name: str, *, sidecar: bool) -> Object:
    labels = {"istio-injection": "enabled"} if sidecar else {}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _account(namespace: str, name: str) -> Object:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}


def _deployment(
    namespace: str,
    name: str,
    container: Object,
    *,
    labels: Mapping[str, str],
    service_account: str = "default",
    replicas: int = 1,
) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name, **labels}},
                "spec": {
                    "serviceAccountName": service_account,
                    "terminationGracePeriodSeconds": 2,
                    "containers": [container],
                },
            },
        },
    }
