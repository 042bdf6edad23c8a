"""`python -m pki`."""

from pki.app import main

if __name__ == "__main__":
    raise SystemExit(main())
