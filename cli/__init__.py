"""The commands that people and pipelines run around the engine: `python -m cli --help`."""
