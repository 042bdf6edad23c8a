from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import yaml

from tools.program import ENVIRONMENT, PROGRAM, REPOSITORY, link_program


def imported(tree: ast.AST) -> Iterator[str]:
    """The packages that a module imports, at any time."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module).partition(".")[0]


def test_the_linked_folder_holds_all_that_the_program_imports(tmp_path: Path) -> None:
    link_program(tmp_path)

    ours = {path.parent.name for path in REPOSITORY.glob("*/__init__.py")}
    modules = [
        tmp_path / "__main__.py",
        *(m for name in PROGRAM for m in (tmp_path / name).resolve().rglob("*.py")),
    ]
    needed = {name for module in modules for name in imported(ast.parse(module.read_text()))} & ours
    assert {"components", "config"} <= needed
    assert needed <= {entry.name for entry in tmp_path.iterdir()}


def test_the_virtual_environment_is_where_the_project_file_says(tmp_path: Path) -> None:
    link_program(tmp_path)

    options = yaml.safe_load((REPOSITORY / "Pulumi.yaml").read_text())["runtime"]["options"]
    assert options["virtualenv"] == ENVIRONMENT
    assert (tmp_path / ENVIRONMENT / "bin" / "python").exists()
