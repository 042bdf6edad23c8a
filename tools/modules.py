"""The pinned Go modules and the programs they yield.

Versions live in `tools/modules/<name>/go.mod` alone; here is only what a go.mod cannot say.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tools.errors import ToolError, UnknownToolError

MODULES_DIRECTORY = Path(__file__).parent / "modules"


@dataclass(frozen=True)
class GoMod:
    """What we read of a go.mod file."""

    tools: tuple[str, ...]
    """Import paths of its `tool` directives."""
    requires: dict[str, str]
    """Version by module path."""


def parse_go_mod(text: str) -> GoMod:
    """Read the `tool` and `require` directives of a go.mod file, single or in blocks."""
    tools: list[str] = []
    requires: dict[str, str] = {}
    block = ""
    for raw in text.splitlines():
        words = raw.split("//")[0].split()
        if not words:
            continue
        if words == [")"]:
            block = ""
            continue
        if len(words) == 2 and words[1] == "(":
            block = words[0]
            continue
        directive, operands = (block, words) if block else (words[0], words[1:])
        if directive == "tool":
            tools.append(operands[0])
        elif directive == "require":
            requires[operands[0]] = operands[1]
    return GoMod(tuple(tools), requires)


@dataclass(frozen=True)
class Module:
    """A folder of `tools/modules`."""

    name: str
    pinned_by: str
    """Path of the required module whose version is the programs' version."""
    stamps: tuple[tuple[str, str], ...] = ()
    """Go string variables that carry the version; `{version}` is `v1.2.3`, `{major}` and `{minor}` its parts."""
    program_name: str | None = None
    """The executable's name where it is not the last element of its import path."""

    @property
    def directory(self) -> Path:
        """Where its go.mod and go.sum lie."""
        return MODULES_DIRECTORY / self.name

    @property
    def version(self) -> str:
        """The pinned version, with its `v`."""
        return self.go_mod().requires[self.pinned_by]

    @property
    def linker_flags(self) -> str:
        """For `go build -ldflags`: no symbols, no debug data, the version stamped in."""
        stamped = [f"-X {variable}={self._stamp(value)}" for variable, value in self.stamps]
        return " ".join(["-s -w", *stamped])

    def go_mod(self) -> GoMod:
        """Its go.mod.

        Raises:
            ToolError: the file is missing or does not pin the program.
        """
        path = self.directory / "go.mod"
        try:
            parsed = parse_go_mod(path.read_text())
        except OSError as error:
            raise ToolError(f"{path}: {error.strerror}; restore it from git") from error
        if self.pinned_by not in parsed.requires:
            raise ToolError(f"{path} does not require {self.pinned_by}; restore it from git")
        return parsed

    def _stamp(self, template: str) -> str:
        numbers = re.match(r"v(\d+)\.(\d+)\.", self.version)
        if numbers is None:
            raise ToolError(f"{self.directory / 'go.mod'}: {self.pinned_by} {self.version} is not v1.2.3")
        return template.format(version=self.version, major=numbers[1], minor=numbers[2])


_SDK = "github.com/pulumi/pulumi/sdk/v3"
_KUBE_VERSION = "k8s.io/component-base/version"

PULUMI = Module("pulumi", _SDK, stamps=((f"{_SDK}/go/common/version.Version", "{version}"),))
PULUMI_LANGUAGE_PYTHON = Module("pulumi-language-python", _SDK)
ETCD = Module("etcd", "go.etcd.io/etcd/server/v3", program_name="etcd")
KUBERNETES = Module(
    "kubernetes",
    "k8s.io/kubernetes",
    stamps=(
        (f"{_KUBE_VERSION}.gitVersion", "{version}"),
        (f"{_KUBE_VERSION}.gitMajor", "{major}"),
        (f"{_KUBE_VERSION}.gitMinor", "{minor}"),
    ),
)
ISTIO = Module("istio", "istio.io/istio")

LAB_MODULES = (ETCD, KUBERNETES, ISTIO)
MODULES = (PULUMI, PULUMI_LANGUAGE_PYTHON, *LAB_MODULES)


@dataclass(frozen=True)
class Program:
    """An executable that a module yields."""

    name: str
    module: Module
    package: str
    """Its import path."""


def programs_of(module: Module) -> tuple[Program, ...]:
    """The programs of a module's `tool` directives, in their order."""
    return tuple(
        Program(module.program_name or package.rsplit("/", 1)[-1], module, package)
        for package in module.go_mod().tools
    )


@cache
def lab_programs() -> dict[str, Program]:
    """The lab's programs by name."""
    return {program.name: program for module in LAB_MODULES for program in programs_of(module)}


@cache
def groups() -> dict[str, tuple[str, ...]]:
    """The tools that a name given to `ensure` stands for: a tool itself, a module's tools, `lab`, `all`."""
    lab = tuple(lab_programs())
    by_module = {
        module.name: tuple(program.name for program in programs_of(module)) for module in LAB_MODULES
    }
    alone = {name: (name,) for name in (PULUMI.name, *lab)}
    return {**by_module, **alone, "lab": lab, "all": (PULUMI.name, *lab)}


def expand(name: str) -> tuple[str, ...]:
    """The tools behind a tool's or group's name.

    Raises:
        UnknownToolError: there is none of that name.
    """
    try:
        return groups()[name]
    except KeyError:
        raise UnknownToolError(
            f"no tool is called {name!r}; there are: {', '.join(sorted(groups()))}"
        ) from None
