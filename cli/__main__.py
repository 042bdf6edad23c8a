"""Entry point of `python -m cli`."""

import sys
from io import TextIOWrapper

from cli.app import main
from tools import stops

if isinstance(sys.stdout, TextIOWrapper):  # what a terminal's encoding cannot show, it shows as its code
    sys.stdout.reconfigure(errors="backslashreplace")
stops.heed()
sys.exit(main())
