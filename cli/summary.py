"""What can reach what, as tables a person reads after `up`."""

from __future__ import annotations

from pathlib import Path

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cli.outputs import Broker, Consumer, Outputs, Provider, Upstream, WildcardRecord


def summary(stack: str, outputs: Outputs, root: Path) -> RenderableType:
    """One stack's summary."""
    parts = list[RenderableType]()
    if outputs.consumer is not None:
        parts.append(consumed(outputs.consumer))
    if outputs.provider is not None:
        parts.append(provided(outputs.provider))
    if outputs.wildcard_record is not None:
        parts.append(Text(found_by(outputs.wildcard_record)))
    if outputs.upstreams:
        parts.append(proxied(outputs.upstreams))
    if outputs.broker is not None:
        parts.append(Text(brokered(outputs.broker)))
    if not parts:
        parts.append(Text("Nothing is imported, exported or proxied by this stack."))
    parts.extend(Text(f"Missing: {what}", style="bold") for what in outputs.missing)
    parts.extend(Text(f"Not checked, since it exists already: {what}") for what in outputs.unchecked)
    if outputs.target is not None:
        parts.append(Text(_where(stack, outputs.target, root)))
    return Panel(Group(*parts), title=escape(stack), title_align="left")


def consumed(consumer: Consumer) -> Table:
    """Which workloads of this cluster reach which service elsewhere, and how."""
    table = _table(f"Consumer {consumer.id}: reaches through egress gateway {consumer.egress_gateway}")
    for heading in ("Service", "Who may use it", "Connects to", "Which arrives at"):
        table.add_column(heading, overflow="fold")
    for endpoint in consumer.endpoints:
        who = ", ".join(endpoint.service_accounts) or "every service account"
        table.add_row(
            escape(endpoint.name),
            escape(f"{who} in {endpoint.namespace}"),
            escape(endpoint.address + (f"\n({endpoint.vip})" if endpoint.vip else "")),
            escape(f"{endpoint.host}:{endpoint.port}\nof provider {endpoint.provider_id}"),
        )
    return table


def provided(provider: Provider) -> Table:
    """Which service of this cluster is reached by which consumers, and how."""
    where = f" at {provider.address}" if provider.address else ""
    table = _table(
        f"Provider {provider.id}: reached through ingress gateway {provider.ingress_gateway}{where}"
    )
    for heading in ("Service", "Who may use it", "Under the host"):
        table.add_column(heading, overflow="fold")
    for name, service in sorted(provider.services.items()):
        for endpoint_name, endpoint in sorted(service.endpoints.items()):
            table.add_row(
                escape(f"{name} / {endpoint_name}"),
                escape(", ".join(service.consumers)),
                escape(f"{endpoint.host}:{endpoint.port}"),
            )
    return table


def found_by(record: WildcardRecord) -> str:
    """How consumers find the provider's hosts, or what is left to do for it."""
    if record.made_by is not None:
        leads = f" leads to {record.value} and" if record.value else ""
        return f"The record {record.name}{leads} is made by {record.made_by}."
    if record.value is None:
        return f"Create the record {record.name}, which leads to the load balancer of the ingress gateway."
    return f"Create the record {record.name} {record.type} {record.value}"


def proxied(upstreams: tuple[Upstream, ...]) -> Table:
    """Which upstreams have a gateway of their own, and from where they are reached."""
    table = _table("Upstreams: each through an egress gateway of its own")
    for heading in ("Upstream", "Reached from", "Under the host", "Through gateway", "Which connects to"):
        table.add_column(heading, overflow="fold")
    for upstream in upstreams:
        table.add_row(
            escape(f"{upstream.namespace}/{upstream.name}"),
            escape(_sources(upstream)),
            escape(f"{upstream.host} ({upstream.protocol})"),
            escape(upstream.gateway),
            escape(upstream.upstream),
        )
    return table


def brokered(broker: Broker) -> str:
    """Where the broker is called, and what it does with the calls."""
    binds = f", binds into {', '.join(broker.binds_in)}" if broker.binds_in else ""
    return f"Broker ({broker.role}) at {broker.address}: calls {broker.upstream}{binds}."


def _table(title: str) -> Table:
    return Table(title=escape(title), title_justify="left", title_style="bold", expand=True)


def _sources(upstream: Upstream) -> str:
    clients = ", ".join(upstream.clients)
    return " and ".join(
        f"mesh ({clients})" if source == "mesh" and clients else source for source in upstream.sources
    )


def _where(stack: str, target: str, root: Path) -> str:
    if not target.startswith("build/"):
        return f"Applied to {target}."
    if not (root / target).is_dir():
        return (
            f"{target}/ is gone, and only what changes is rendered: to have it all again, run python -m cli down {stack}, "
            f"then up {stack}. No cluster was touched."
        )
    return f"Objects rendered to {target}/; no cluster was touched."
