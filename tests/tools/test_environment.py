from __future__ import annotations

import sys
from pathlib import Path

from tools.environment import compose
from tools.plugins import KubernetesPlugin
from tools.pulumi_cli import Cli

PYTHON = str(Path(sys.executable).parent)
OFFICIAL = KubernetesPlugin(True, "4.0.0", None, "")
STAND_IN = KubernetesPlugin(False, "4.0.0", Path("/stand-in"), "")


def test_the_stand_in_precedes_python_and_the_built_cli() -> None:
    environment = compose({"PATH": "/usr/bin", "HOME": "/h"}, Cli(Path("/built/pulumi"), "build"), STAND_IN)

    assert environment["PATH"] == f"/stand-in:{PYTHON}:/built:/usr/bin"
    assert environment["HOME"] == "/h"
    assert environment["PULUMI_SKIP_UPDATE_CHECK"] == "true"
    assert environment["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] == "true"


def test_with_the_official_plugin_and_a_cli_on_path_little_is_added() -> None:
    environment = compose({"PATH": "/usr/bin"}, Cli(Path("/usr/bin/pulumi"), "PATH"), OFFICIAL)

    assert environment == {"PATH": f"{PYTHON}:/usr/bin", "PULUMI_SKIP_UPDATE_CHECK": "true"}


def test_no_secret_is_added() -> None:
    environment = compose({}, Cli(Path("/built/pulumi"), "build"), STAND_IN)

    assert not [name for name in environment if "PASSPHRASE" in name or "TOKEN" in name]
