"""The provider's own inputs: what is wrong with them, and which changes move its objects to another cluster.

Source page: the Kubernetes provider's "Installation & configuration" page of Pulumi's registry.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from lab.providers.kubeconfig import Access, KubeconfigError, load
from lab.providers.protocol import provider_pb2
from lab.providers.settings import is_true, plain
from lab.providers.values import UNKNOWN, Object, decode, has_unknown, reveal_object

_CLUSTER_KEYS: Final = ("kubeconfig", "context", "cluster")
_RENDER_KEY: Final = "renderYamlToDirectory"
_IDENTIFIER_KEY: Final = "clusterIdentifier"


def check_config(
    request: provider_pb2.CheckRequest, environment: Mapping[str, str] | None = None
) -> provider_pb2.CheckResponse:
    """Refuse inputs that contradict each other: objects are either rendered or applied."""
    variables = os.environ if environment is None else environment
    inputs = reveal_object(decode(request.news))
    failures = []
    if plain(inputs.get(_RENDER_KEY)):
        for key in _CLUSTER_KEYS:
            given = plain(inputs[key]) if key in inputs and inputs[key] is not UNKNOWN else ""
            ambient = key == "kubeconfig" and given == variables.get("KUBECONFIG")
            if given and not ambient:
                reason = f'"{key}" arg is not compatible with "{_RENDER_KEY}" arg'
                failures.append(provider_pb2.CheckFailure(property=key, reason=reason))
    elif is_true(inputs.get("alwaysRender")):
        reason = f'"alwaysRender" requires "{_RENDER_KEY}" to be set'
        failures.append(provider_pb2.CheckFailure(property="alwaysRender", reason=reason))
    return provider_pb2.CheckResponse(inputs=request.news, failures=failures)


def diff_config(request: provider_pb2.DiffRequest) -> provider_pb2.DiffResponse:
    """Say which changed inputs need every object to be made anew: another cluster, another folder.

    Two kubeconfigs are the same cluster when the context in use names the same server. A `clusterIdentifier` that is
    given before and after decides instead.
    """
    olds, news = reveal_object(decode(request.olds)), reveal_object(decode(request.news))
    changed = sorted(key for key in {*olds, *news} if olds.get(key) != news.get(key) and key != "version")
    if not changed:
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)
    replaces = []
    if olds.get(_IDENTIFIER_KEY) and news.get(_IDENTIFIER_KEY):
        replaces = [_IDENTIFIER_KEY] if _IDENTIFIER_KEY in changed else []
    else:
        unknown = [key for key in _CLUSTER_KEYS if has_unknown(news.get(key))]
        moved = _moved(olds, news)
        replaces = unknown or [
            key for key in changed if key == _RENDER_KEY or (moved and key in _CLUSTER_KEYS)
        ]
    return provider_pb2.DiffResponse(
        changes=provider_pb2.DiffResponse.DIFF_SOME, diffs=changed, replaces=replaces
    )


def _moved(olds: Object, news: Object) -> bool:
    old, new = _access(olds), _access(news)
    if old is None or new is None:
        return False
    return (old.server, old.ca, old.server_name, old.verify) != (
        new.server,
        new.ca,
        new.server_name,
        new.verify,
    )


def _access(inputs: Object) -> Access | None:
    kubeconfig = plain(inputs.get("kubeconfig")) if not has_unknown(inputs) else ""
    if not kubeconfig:
        return None
    try:
        return load(kubeconfig, context=plain(inputs.get("context")), cluster=plain(inputs.get("cluster")))
    except KubeconfigError:
        return None
