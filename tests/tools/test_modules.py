from __future__ import annotations

import re
from pathlib import Path

import pytest

import tools
from tools import modules
from tools.errors import ToolError, UnknownToolError
from tools.modules import Module, parse_go_mod

GO_MOD = """\
module example

go 1.26

tool example.org/a/cmd/one // why

tool (
	example.org/a/cmd/two
	example.org/b/v3
)

require example.org/alone v0.1.0

require (
	example.org/a v1.2.3 // indirect
	example.org/b/v3 v3.0.1-0.20240101000000-abcdef012345
)

replace example.org/a => example.org/fork v9.9.9
replace (
	example.org/c => example.org/d v8.8.8
)
"""


def test_reads_single_and_block_directives_and_no_replacement() -> None:
    parsed = parse_go_mod(GO_MOD)

    assert parsed.tools == ("example.org/a/cmd/one", "example.org/a/cmd/two", "example.org/b/v3")
    assert parsed.requires == {
        "example.org/alone": "v0.1.0",
        "example.org/a": "v1.2.3",
        "example.org/b/v3": "v3.0.1-0.20240101000000-abcdef012345",
    }


@pytest.mark.parametrize("module", modules.MODULES, ids=lambda module: module.name)
def test_every_pinned_module_is_complete(module: Module) -> None:
    assert re.match(r"v\d+\.\d+\.\d+", module.version)
    assert modules.programs_of(module)
    assert (module.directory / "go.sum").stat().st_size > 0


def test_every_folder_of_pinned_modules_is_known() -> None:
    folders = {path.name for path in modules.MODULES_DIRECTORY.iterdir() if path.is_dir()}
    assert folders == {module.name for module in modules.MODULES}


def test_the_engine_and_the_sdk_of_requirements_are_one_version() -> None:
    requirements = (Path(modules.__file__).parent.parent / "requirements.in").read_text()
    assert f"pulumi=={modules.PULUMI.version.removeprefix('v')}\n" in requirements


def test_the_version_is_stamped_into_the_programs() -> None:
    flags = modules.KUBERNETES.linker_flags
    _, major, minor, _ = re.split(r"[v.]", modules.KUBERNETES.version)

    assert flags.startswith("-s -w ")
    assert f"version.gitVersion={modules.KUBERNETES.version}" in flags
    assert f"version.gitMajor={major}" in flags
    assert f"version.gitMinor={minor}" in flags
    assert modules.ETCD.linker_flags == "-s -w"


def test_a_module_that_does_not_pin_its_program_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modules, "MODULES_DIRECTORY", tmp_path)
    (tmp_path / "broken").mkdir()
    module = Module("broken", "example.org/missing")

    with pytest.raises(ToolError, match=r"broken/go\.mod: No such file"):
        _ = module.version
    (tmp_path / "broken" / "go.mod").write_text(GO_MOD)
    with pytest.raises(ToolError, match=r"broken/go\.mod does not require example\.org/missing"):
        _ = module.version


def test_groups_hold_the_tools_of_a_module_of_the_lab_and_all() -> None:
    assert tools.expand("etcd") == ("etcd",)
    assert tools.expand("kubernetes") == ("kube-apiserver", "kube-controller-manager")
    assert set(tools.expand("istio")) == {"pilot-discovery", "pilot-agent", "istioctl"}
    assert set(tools.expand("lab")) == {"etcd", *tools.expand("kubernetes"), *tools.expand("istio")}
    assert set(tools.expand("all")) == {"pulumi", *tools.expand("lab")}


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownToolError, match=r"'envoy'; there are: .*etcd.*pulumi"):
        tools.expand("envoy")
    with pytest.raises(UnknownToolError, match=r"'lab'; there are: .*etcd"):
        tools.ensure("lab")
