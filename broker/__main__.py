"""`python -m broker`."""

import signal

from broker.cli import main

signal.signal(signal.SIGTERM, signal.default_int_handler)  # the end of a Pod cleans up as a Ctrl-C does
main()
