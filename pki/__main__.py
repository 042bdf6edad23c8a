"""`python -m pki`."""

import signal

from pki.app import main

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a CI runner's end cleans up as a Ctrl-C does
    raise SystemExit(main())
