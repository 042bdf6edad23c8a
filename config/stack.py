"""The whole vocabulary of one stack, and the way from raw data to it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from config.broker import Broker
from config.checks import findings_of
from config.cluster import Cluster
from config.consumer import Consumer
from config.edge import Aws
from config.errors import ConfigError, Finding, finding, resembling
from config.provider import Provider
from config.types import Model
from config.upstream import Upstream

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class Stack(Model):
    """One cluster: its roles are the sections that are present, in any mix."""

    cluster: Cluster
    """The cluster: how it is reached (`kubeconfig`, `context` or `render: true`) and what its mesh calls itself."""

    consumer: Consumer | None = None
    """The cluster as a consumer of other clusters' services."""

    provider: Provider | None = None
    """The cluster as a provider of services."""

    aws: Aws | None = None
    """The AWS account, where the load balancer or the wildcard record lies in one."""

    upstreams: tuple[Upstream, ...] = ()
    """Services outside every mesh, each behind an egress gateway of its own."""

    broker: Broker | None = None
    """The Open Service Broker proxy of the cluster; none: bindings are not made through it."""

    @property
    def control_plane(self) -> tuple[str, int] | None:
        """Address and port of the broker to which the provider's control-plane route leads; None where there is no
        such route."""
        route = self.provider.control_plane if self.provider is not None else None
        if route is None:
            return None
        if route.address is not None and route.port is not None:
            return route.address, route.port
        if self.broker is None:
            raise ValueError("controlPlane: the stack was not checked by config.parse")
        return f"{self.broker.name}.{self.broker.namespace}.svc.{self.cluster.domain}", self.broker.port


def parse(data: Mapping[str, object], source: str = "the configuration") -> Stack:
    """`data` (the stack's keys without the `meshbridge:` prefix, as JSON types) as a Stack.

    Raises ConfigError with every finding: of single values and, among the parts that are valid, of what
    does not fit together.
    """
    try:
        stack = _validated(data)
    except ValidationError as error:
        raise ConfigError(_findings(data, error.errors()), source) from None
    findings = findings_of(stack, data)
    if findings:
        raise ConfigError(findings, source)
    return stack


def _validated(data: Mapping[str, object]) -> Stack:
    return Stack.model_validate_json(json.dumps(data), by_alias=True, by_name=False)


def _findings(data: Mapping[str, object], errors: Sequence[ErrorDetails]) -> list[Finding]:
    """What is wrong with single values, and what does not fit together whatever these values should have been.

    The latter is what is found with either of two different sets of stand-ins for the invalid values.
    """
    if not all(error["loc"] for error in errors):
        return [finding(error, Stack, data) for error in errors]
    spelled, corrected = _spelled(data, errors)
    findings = [
        finding(e, Stack, data) for e in errors if e["type"] != "missing" or e["loc"] not in corrected
    ]
    low = _Repaired(spelled, "stand-in-a", numbers=(1,), boolean=True).stack()
    high = _Repaired(spelled, "stand-in-b", numbers=(65535, 100), boolean=False).stack()
    among_high = findings_of(high, spelled)
    return findings + [found for found in findings_of(low, spelled) if found in among_high]


def _spelled(
    data: Mapping[str, object], errors: Sequence[ErrorDetails]
) -> tuple[dict[str, Any], set[tuple[str | int, ...]]]:
    """A copy of the data in which unknown keys are spelled as the known ones that they resemble, and the places of
    these."""
    copied: dict[str, Any] = copy.deepcopy(dict(data))
    places: set[tuple[str | int, ...]] = set()
    for error in errors:
        *parents, key = error["loc"]
        close = resembling(Stack, error["loc"]) if error["type"] == "extra_forbidden" else None
        section: Any = copied
        for part in parents:
            section = section[part]
        if close is not None and close not in section:
            section[close] = section.pop(key)
            places.add((*parents, close))
    return copied, places


class _Repaired:
    """A copy of the data in which invalid values give way to stand-ins, so that the valid rest can be checked.

    Each invalid place is tried with values of every type; where none is valid, it is left out.
    """

    def __init__(
        self, data: Mapping[str, object], token: str, numbers: tuple[int, ...], boolean: bool
    ) -> None:
        self._data: dict[str, Any] = copy.deepcopy(dict(data))
        self._token = token
        self._values: tuple[object, ...] = (*numbers, boolean)
        self._reversed = boolean
        self._left: dict[tuple[str | int, ...], list[object]] = {}

    def stack(self) -> Stack:
        """The stack of the repaired data."""
        while True:
            try:
                return _validated(self._data)
            except ValidationError as error:
                self._mend(error.errors())

    def _mend(self, errors: Sequence[ErrorDetails]) -> None:
        for error in errors:
            loc = error["loc"]
            if error["type"] == "extra_forbidden":
                self._put(loc, _GAP)
                continue
            left = self._left.setdefault(loc, self._candidates(error))
            if left:
                self._put(loc, left.pop(0))
            else:
                self._put(loc[:-1] if error["type"] == "missing" else loc, _GAP)
        self._data = _without_gaps(self._data)
        self._data.setdefault("cluster", {"render": True})

    def _candidates(self, error: ErrorDetails) -> list[object]:
        choices = re.findall(r"'([^']*)'", str(error.get("ctx", {}).get("expected", "")))
        label = f"{self._token}-{len(self._left)}"
        texts = [f"{label}.invalid", label]
        lists = [[text] for text in texts]
        return [*(reversed(choices) if self._reversed else choices), *texts, *self._values, *lists]

    def _put(self, loc: Sequence[str | int], value: object) -> None:
        target: Any = self._data
        for part in loc[:-1]:
            target = target[part]
            if target is _GAP:
                return
        target[loc[-1]] = value


_GAP = object()


def _without_gaps(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_gaps(item) for key, item in value.items() if item is not _GAP}
    if isinstance(value, list):
        return [_without_gaps(item) for item in value if item is not _GAP]
    return value
