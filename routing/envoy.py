"""What Istio's own objects cannot say of a gateway, merged into the configuration that istiod makes for Envoy."""

from __future__ import annotations

from collections.abc import Mapping

from routing.manifest import Json, Manifest, networking

TYPES = "type.googleapis.com/envoy.extensions"


def merged(
    name: str,
    namespace: str,
    labels: Mapping[str, str],
    *,
    applies_to: str,
    filter_chain: Mapping[str, Json],
    value: Mapping[str, Json],
) -> Manifest:
    """An EnvoyFilter that merges `value` into whatever of the gateway's listeners is of the kind `applies_to` and lies in a
    chain that matches `filter_chain`. Merging sets fields and appends to lists (Istio's "Envoy Filter")."""
    spec = {
        "workloadSelector": {"labels": dict(labels)},
        "configPatches": [
            {
                "applyTo": applies_to,
                "match": {"context": "GATEWAY", "listener": {"filterChain": dict(filter_chain)}},
                "patch": {"operation": "MERGE", "value": dict(value)},
            }
        ],
    }
    annotations = {"galley.istio.io/analyze-suppress": "IST0133"}
    return networking("EnvoyFilter", name, namespace, spec, annotations=annotations)
