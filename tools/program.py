"""The project's program in a folder of another's: beside stacks and a state of their own."""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]

PROGRAM = ("__main__.py", "Pulumi.yaml", "certificates", "components", "config", "federation", "routing")
"""What the engine needs of the repository to run the program."""

ENVIRONMENT = ".venv"
"""The virtual environment that `Pulumi.yaml` names; a current language host refuses a project without it."""


def link_program(directory: Path) -> None:
    """Link the program and the running Python's virtual environment into a folder, for the engine to run there."""
    for name in PROGRAM:
        (directory / name).symlink_to(REPOSITORY / name)
    (directory / ENVIRONMENT).symlink_to(sys.prefix)
