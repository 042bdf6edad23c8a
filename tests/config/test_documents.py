"""Configurations in the documentation are ones that the program accepts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from config import Stack, parse

DOCUMENTS = Path(__file__).parents[2] / "docs"
EXAMPLES = [
    (document.name, text)
    for document in sorted(DOCUMENTS.glob("*.md"))
    for text in re.findall(r"```yaml\n(config:\n.*?)```", document.read_text(encoding="utf-8"), re.DOTALL)
]


@pytest.mark.parametrize(("document", "text"), EXAMPLES)
def test_an_example_of_a_stack_file_is_one(document: str, text: str) -> None:
    values = yaml.safe_load(text)["config"]
    assert isinstance(parse({key.removeprefix("meshbridge:"): value for key, value in values.items()}), Stack)


def test_there_is_one_for_aws() -> None:
    assert "aws.md" in {document for document, _ in EXAMPLES}
