"""The stacks of a Pulumi project as its files describe them: which there are and which refers to which."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cli.errors import CliError

EXAMPLE_PREFIX = "example-"
STACK_NAME = "[A-Za-z0-9_][A-Za-z0-9._-]{0,99}"
"""What a stack may be called: what Pulumi allows, but for names that a command line or a file's name reads otherwise."""

LARGEST_FILE = 8 * 2**20
"""Bytes of a stack's file; hundreds of endpoints take less than one of the eight."""

MOST_VALUES = 1_000_000
"""Values of a stack's file, those behind an alias counted wherever it stands."""

NO_KEYS = {"tag:yaml.org,2002:timestamp": "a date", "tag:yaml.org,2002:binary": "bytes"}
"""Kinds of scalars, by their YAML tag, that no key of a mapping can be."""


class _ProjectFile(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    stack_config_dir: str = Field(default=".", alias="stackConfigDir")


@dataclass(frozen=True)
class Project:
    """A directory with a `Pulumi.yaml` and its stack files."""

    root: Path
    name: str
    stack_dir: Path

    @classmethod
    def load(cls, root: Path) -> Project:
        """The project in the directory `root`."""
        file = root / "Pulumi.yaml"
        try:
            model = _ProjectFile.model_validate(read_yaml(file))
        except ValidationError as error:
            raise CliError(f"{file} is not a Pulumi project file: {error}", "Correct it.") from error
        return cls(root, model.name, root / model.stack_config_dir)

    def stack_file(self, stack: str) -> Path:
        """Where the settings of `stack` stand."""
        return self.stack_dir / f"Pulumi.{stack}.yaml"

    def stacks(self) -> tuple[str, ...]:
        """The names of all stacks that have a file, sorted. A copy, `Pulumi.prod copy.yaml`, is none of a stack."""
        files = self.stack_dir.glob("Pulumi.*.yaml")
        return tuple(sorted(name for file in files if (name := stack_of(file.name)) is not None))

    def chosen(self, names: Iterable[str]) -> tuple[str, ...]:
        """`names`, or the example stacks when there are none; each must have a file."""
        known = self.stacks()
        wanted = tuple(names) or tuple(name for name in known if name.startswith(EXAMPLE_PREFIX))
        for name in wanted:
            if name not in known:
                is_name = re.fullmatch(STACK_NAME, name) is not None
                raise CliError(
                    f"There is no stack {name!r}: {self.stack_file(name)} does not exist."
                    if is_name
                    else f"{name!r} is no name of a stack: letters, digits, `_`, `-` and `.` are, and neither of the last two "
                    "stands first.",
                    f"Choose one of: {', '.join(known) or '(no stack files yet)'}.",
                )
        if not wanted:
            raise CliError(f"{self.stack_dir} holds no example stacks.", "Name the stacks to work on.")
        return wanted

    def references(self, stack: str) -> frozenset[str]:
        """The stacks of this project whose outputs `stack` reads (`stack: ORGANIZATION/PROJECT/NAME`)."""
        names = (value.split("/") for value in _values_of("stack", read_yaml(self.stack_file(stack))))
        return frozenset(parts[2] for parts in names if len(parts) == 3 and parts[1] == self.name)

    def in_order(self, stacks: Iterable[str]) -> tuple[str, ...]:
        """`stacks`, each behind those it refers to."""
        wanted = sorted(set(stacks))
        sorter = TopologicalSorter({stack: sorted(self.references(stack) & set(wanted)) for stack in wanted})
        try:
            return tuple(sorter.static_order())
        except CycleError as error:
            ring = " → ".join(error.args[1])
            raise CliError(f"The stacks refer to each other in a ring: {ring}.", "Break it.") from error

    def with_references(self, stacks: Iterable[str]) -> frozenset[str]:
        """`stacks` and every stack with a file here that they refer to, directly or not."""
        known, found, todo = set(self.stacks()), set[str](), set(stacks)
        while todo:
            stack = todo.pop()
            found.add(stack)
            todo |= (self.references(stack) & known) - found
        return frozenset(found)


def stack_of(file: str) -> str | None:
    """The stack whose settings a file of this name holds; None for another file."""
    found = re.fullmatch(rf"Pulumi\.({STACK_NAME})\.yaml", file)
    return found[1] if found is not None else None


def read_yaml(file: Path) -> Mapping[str, object]:
    """The mapping in a YAML file. A key that stands twice in a mapping is refused, as Pulumi does."""
    try:
        loader = yaml.SafeLoader(_text(file))
        root = loader.get_single_node()
        if root is not None:
            _check(file, root, {})
        content = loader.construct_document(root) if root is not None else None
    except OSError as error:
        remedy = (
            "Run this in a checkout."
            if isinstance(error, FileNotFoundError)
            else "Make it a file that you may read."
        )
        raise CliError(f"{file} cannot be read: {error.strerror}.", remedy) from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: bytes that are no UTF-8, days that are none
        raise CliError(f"{file} is not valid YAML: {error}", "Correct it.") from error
    except RecursionError as error:
        raise CliError(f"{file} is nested too deep.", "Flatten it.") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise CliError(f"{file} holds {type(content).__name__}, not a mapping.", "Correct it.")
    return content


def _text(file: Path) -> str:
    status = file.stat()
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise CliError(f"{file} is no regular file.", "Put a file in its place.")
    if status.st_size > LARGEST_FILE:
        raise CliError(
            f"{file} has {status.st_size} bytes, and {LARGEST_FILE} are read at most.",
            "Divide it into several stacks.",
        )
    return file.read_text(encoding="utf-8")


def _check(file: Path, node: yaml.Node, sizes: dict[int, int]) -> int:
    """How many values a node holds, those behind an alias counted wherever it stands. `sizes` is what is known of others
    by their identity, 0 where it is still being counted. Raises CliError for what Pulumi or JSON would not take: keys that
    stand twice, keys that are dates or bytes, and aliases of what holds them or of more than there is room for."""
    known = sizes.get(id(node))
    if known == 0:
        raise CliError(
            f"{_line(file, node)}: the anchor there stands for a value that holds itself.", "Write it out."
        )
    if known is not None:
        return known
    sizes[id(node)] = 0
    size = 1
    if isinstance(node, yaml.MappingNode):
        before = set[str]()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in before:
                    raise CliError(
                        f"{_line(file, key)}: the key {key.value!r} stands there for the second time, and only one of the "
                        "two would count.",
                        "Join the two, or remove one.",
                    )
                before.add(key.value)
                if key.tag in NO_KEYS:
                    raise CliError(
                        f"{_line(file, key)}: the key {key.value!r} is {NO_KEYS[key.tag]}, not a text.",
                        "Put it in quotes, or correct it.",
                    )
            size += _check(file, value, sizes)
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_check(file, item, sizes) for item in node.value)
    if size > MOST_VALUES:
        raise CliError(
            f"{_line(file, node)}: more than {MOST_VALUES} values stand here.", "Use fewer aliases."
        )
    sizes[id(node)] = size
    return size


def _line(file: Path, node: yaml.Node) -> str:
    return f"{file}, line {node.start_mark.line + 1}"


def _values_of(key: str, tree: object) -> Iterator[str]:
    if isinstance(tree, dict):
        for name, value in tree.items():
            if name == key and isinstance(value, str):
                yield value
            else:
                yield from _values_of(key, value)
    elif isinstance(tree, list):
        for item in tree:
            yield from _values_of(key, item)
