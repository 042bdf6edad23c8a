"""Names that follow from the vocabulary, which is why their lengths and clashes are checked here."""

from __future__ import annotations

import hashlib
import re
from typing import Protocol

IMPORT_PREFIX = "import-"
EXPORT_PREFIX = "export-"
UPSTREAM_PREFIX = "upstream-"
SERVICE_PREFIX = "svc-"

CONTROL_PLANE = "control-plane"
"""Slug of the broker's public route."""

BROKER_UPSTREAM = "broker-upstream"
"""Slug of the way of the consumer's broker to that route."""


def slug(service: str, endpoint: str) -> str:
    """The DNS label that stands for one endpoint: `orders`, `primary` is `orders-primary`."""
    return f"{service}-{endpoint}"


class Named(Protocol):
    """What has a name, and may have had another one."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def formerly(self) -> str | None:
        """The name that it had before."""


def former_slugs(service: Named, endpoint: Named) -> list[str]:
    """The slug that an endpoint had before it or its service was renamed; empty when neither was."""
    if service.formerly is None and endpoint.formerly is None:
        return []
    return [slug(service.formerly or service.name, endpoint.formerly or endpoint.name)]


def imported(endpoint_slug: str) -> str:
    """Name of the objects of an imported endpoint."""
    return IMPORT_PREFIX + endpoint_slug


def exported(endpoint_slug: str) -> str:
    """Name of the objects of an exported endpoint."""
    return EXPORT_PREFIX + endpoint_slug


def upstream(name: str) -> str:
    """Name of the routing objects of an upstream."""
    return UPSTREAM_PREFIX + name


def upstream_mesh(name: str) -> str:
    """Name of the objects of the clients' way to an upstream's gateway."""
    return f"{upstream(name)}-mesh"


def upstream_opa(name: str) -> str:
    """Name of the objects by which an upstream's gateway asks OPA."""
    return f"{upstream(name)}-opa"


def virtual_ip_service(endpoint_slug: str) -> str:
    """Default name of the Service whose cluster IP is an imported endpoint's virtual IP."""
    return SERVICE_PREFIX + endpoint_slug


def share(gateway: str, owner: str) -> str:
    """What the names of the objects begin with that a stack adds to a gateway of another owner, so that each of the stacks
    that adopt it has its own. owner: the stack's fully qualified name."""
    stack = re.sub(r"[^a-z0-9]+", "-", owner.rpartition("/")[2].lower())[:30].strip("-")
    digest = hashlib.sha256(owner.encode()).hexdigest()[:8]
    return "-".join(part for part in (gateway, stack, digest) if part)


def sidecars(gateway: str) -> str:
    """Name of the rule with the sidecars' timeouts towards a gateway."""
    return f"sidecars-{gateway}"


def load_balancer_service(gateway: str, scheme: str) -> str:
    """Name of the Service from which the AWS Load Balancer Controller makes a load balancer. The scheme is part of it,
    so that a change of scheme makes the new load balancer before the old one goes."""
    return f"{gateway}-{scheme}"


def target_service(gateway: str) -> str:
    """Name of the Service whose Pods a TargetGroupBinding registers."""
    return f"{gateway}-targets"


def wildcard(domain: str) -> str:
    """The name of a domain's wildcard record."""
    return f"*.{domain}"


def control_plane_host(system_domain: str) -> str:
    """The usual public host of a provider's broker."""
    return f"istio-broker.{system_domain}"


def broker_routes(broker: str, namespace: str) -> str:
    """Name of the rights to make the routes of a broker's bindings, in whichever namespace these lie."""
    return f"{broker}.{namespace}-routes"
