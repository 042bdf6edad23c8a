"""Entry point of `python -m cli`."""

import signal
import sys
from io import TextIOWrapper

from cli.app import main

if isinstance(sys.stdout, TextIOWrapper):  # what a terminal's encoding cannot show, it shows as its code
    sys.stdout.reconfigure(errors="backslashreplace")
signal.signal(signal.SIGTERM, signal.default_int_handler)  # a CI runner's end cleans up as a Ctrl-C does
sys.exit(main())
