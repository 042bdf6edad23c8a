"""What every kind of resource can do, and the tags that most of them have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from lab.providers.aws.account import Account
from lab.providers.values import Object, Value, mapping


class Resource(ABC):
    """One kind of resource. `missing` are the error codes by which AWS says that one is gone."""

    service: ClassVar[str]
    missing: ClassVar[tuple[str, ...]]

    def __init__(self, account: Account) -> None:
        self.account = account

    @property
    def client(self) -> Any:
        """The client whose calls are recorded."""
        return self.account.client(self.service)

    @abstractmethod
    def create(self, inputs: Object) -> str:
        """Make it; returns its id."""

    @abstractmethod
    def read(self, identifier: str, state: Object) -> Object:
        """Its state. Raises botocore's ClientError, with one of the codes in `missing` where it is gone, or LookupError
        for the same."""

    @abstractmethod
    def update(self, identifier: str, changed: frozenset[str], inputs: Object, state: Object) -> None:
        """Bring the `changed` inputs about."""

    @abstractmethod
    def delete(self, identifier: str, state: Object) -> None:
        """Take it away."""


class Tagged(Resource):
    """A resource with tags, in AWS's form a list of keys and values."""

    @abstractmethod
    def read_tags(self, arn: str) -> list[Any]:
        """The tags of a resource."""

    @abstractmethod
    def add_tags(self, arn: str, tags: list[dict[str, str]]) -> None:
        """Set tags of a resource."""

    @abstractmethod
    def remove_tags(self, arn: str, keys: list[str]) -> None:
        """Remove tags of a resource."""

    def tags_of(self, identifier: str) -> Object:
        """The tags of a resource as the state holds them."""
        return plain_tags(self.read_tags(identifier))

    def retag(self, identifier: str, changed: frozenset[str], inputs: Object, state: Object) -> None:
        """Bring the tags about, where they are among what changed."""
        if "tags" not in changed:
            return
        gone = sorted(mapping(state, "tags").keys() - mapping(inputs, "tags").keys())
        if gone:
            self.remove_tags(identifier, gone)
        self.add_tags(identifier, api_tags(inputs))


def api_tags(inputs: Object) -> list[dict[str, str]]:
    """The tags of the inputs in AWS's form."""
    return [{"Key": key, "Value": str(value)} for key, value in mapping(inputs, "tags").items()]


def plain_tags(tags: list[Any]) -> Object:
    """Tags in AWS's form as the state holds them."""
    return {tag["Key"]: tag["Value"] for tag in tags}


def flag(value: Value) -> str:
    """A boolean attribute in AWS's form; the provider has some as text already."""
    return "true" if value in (True, "true") else "false"
