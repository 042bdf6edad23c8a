"""The commands of `python -m pki`, by what they work on."""
