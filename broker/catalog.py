"""The catalog as it passes: the provider marks its services, the consumer takes the mark away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from broker.documents import Document, Json


def mark(catalog: Document, prefix: str, plan_metadata: Mapping[str, Json]) -> Document:
    """Provider: prefixes each service's name and merges the metadata into every plan's."""
    for service in _objects(catalog.get("services")):
        if isinstance(service.get("name"), str):
            service["name"] = f"{prefix}{service['name']}"
        for plan in _objects(service.get("plans")):
            if plan_metadata:
                metadata = plan.get("metadata")
                plan["metadata"] = {**(metadata if isinstance(metadata, dict) else {}), **plan_metadata}
    return catalog


def unmark(catalog: Document, prefix: str) -> Document:
    """Consumer: strips the prefix from each service's name that has it."""
    for service in _objects(catalog.get("services")):
        name = service.get("name")
        if isinstance(name, str):
            service["name"] = name.removeprefix(prefix)
    return catalog


def retrievable(catalog: Document) -> set[str]:
    """Ids of the services whose bindings can be fetched again (`bindings_retrievable`)."""
    found = (s for s in _objects(catalog.get("services")) if s.get("bindings_retrievable") is True)
    return {name for name in (service.get("id") for service in found) if isinstance(name, str)}


def _objects(value: Json) -> Iterator[Document]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, dict))
