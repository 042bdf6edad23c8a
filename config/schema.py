"""The JSON Schema of `stacks/Pulumi.<stack>.yaml`, so that editors complete and check it.

`python -m config.schema` writes `config/schema.json`; `--check` exits with 1 when that file is not fresh.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from config.certificate import SECRET_PREFIX
from config.stack import Stack

FILE = Path(__file__).with_name("schema.json")


def schema() -> dict[str, Any]:
    """The schema of a stack file: the vocabulary's keys carry the prefix `meshbridge:`, others are Pulumi's own."""
    vocabulary = Stack.model_json_schema(by_alias=True)
    secret = {
        "type": "object",
        "required": ["secure"],
        "properties": {"secure": {"type": "string"}},
        "additionalProperties": False,
    }
    kubeconfig = "Contents of a kubeconfig, encrypted by `pulumi config set --secret kubeconfig`."
    certificate = "A certificate with its key, encrypted by `python -m pki store`."
    properties = {f"meshbridge:{key}": value for key, value in vocabulary["properties"].items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A Meshbridge stack",
        "type": "object",
        "required": ["config"],
        "properties": {
            "config": {
                "type": "object",
                "description": vocabulary["description"],
                "required": [f"meshbridge:{key}" for key in vocabulary["required"]],
                "properties": {**properties, "meshbridge:kubeconfig": {**secret, "description": kubeconfig}},
                "patternProperties": {
                    "^(?!meshbridge:)": {},
                    f"^meshbridge:{SECRET_PREFIX}": {**secret, "description": certificate},
                },
                "additionalProperties": False,
            },
        },
        "$defs": vocabulary["$defs"],
    }


def text() -> str:
    """The schema as it stands in the file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the schema, or with `--check` compare; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m config.schema", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 when config/schema.json is not fresh"
    )
    if not parser.parse_args().check:
        FILE.write_text(text())
        return 0
    if FILE.exists() and FILE.read_text() == text():
        return 0
    sys.stderr.write("config/schema.json is not fresh; run `make schema` and commit it\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
