"""What importing the program brings along."""

from __future__ import annotations

import subprocess
import sys

FOREIGN = ("pulumi_aws", "boto3", "botocore", "moto")
PROGRAM = (
    "import sys; import components, config.settings; "
    f"print(*sorted(m for m in sys.modules if m.partition('.')[0] in {FOREIGN}))"
)


def test_no_stack_pays_for_aws() -> None:
    """The AWS resources are thin classes of the program's own, so a stack imports no SDK for them, whether it uses AWS
    or not, and Pulumi's engine finds no package that would make it download the plugin."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
