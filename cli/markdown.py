"""Text that others wrote, put into GitHub Markdown so that it shows as itself and does nothing else.

A value may hold backticks, pipes, HTML, mentions or another comment's end; none of it may act.
"""

from __future__ import annotations

import re
import unicodedata

# What stands for itself in every place where `code` is used. The look-arounds keep out what would be emphasis (`_a_`),
# a link (`[a](b)`) or an address that GitHub links by itself (`https://`, `www.`, `mailto:`), and leave the rest legible.
_code = re.compile(
    r"""[A-Za-z0-9 /,;=()-]+
      | (?<=[A-Za-z0-9])_(?=[A-Za-z0-9])
      | (?<![wW]{3})\.
      | :(?=[0-9])
      | \[(?=[A-Za-z0-9]+\](?![(\[:]))
      | (?<=[A-Za-z0-9])\](?![(\[:])
      | (?P<acts>[\x00-\x7f])""",
    re.VERBOSE,
)
LONGEST = 300
_backticks = re.compile(r"`+")


def visible(text: str, *, keep: str = "") -> str:
    """`text` with control, format and unassigned characters (a bidi override, say) as escapes, but for `keep`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character
        if character in keep or not unicodedata.category(character).startswith("C")
        else _escape(character)
        for character in text
    )


def clip(text: str, length: int) -> str:
    """`text`, or its beginning and how long it is."""
    return text if len(text) <= length else f"{text[:length]}… ({len(text):,} characters)"


def code(text: str, length: int = LONGEST) -> str:
    """Inline code on one line that shows `text`, or its first `length` characters. Safe in a table, a list and a heading.

    It is HTML, because a backtick span can neither hold every text nor stand in every place; the characters that
    Markdown reads are character references, and GitHub links no mention or issue inside `<code>`.
    """
    shown = clip(visible(text.replace("\r\n", "\n").replace("\n", "⏎")), length)
    return f"<code>{_code.sub(_reference, shown)}</code>"


def block(text: str, length: int) -> str:
    """A code block that shows `text`, or its beginning; its fence is longer than any in the text."""
    shown = clip(visible(text.replace("\r\n", "\n"), keep="\n\t"), length)
    fence = "`" * max(3, 1 + max((len(run) for run in _backticks.findall(shown)), default=0))
    return f"{fence}text\n{shown}\n{fence}"


def _reference(match: re.Match[str]) -> str:
    return f"&#{ord(match[0])};" if match["acts"] else match[0]


def _escape(character: str) -> str:
    return f"\\u{{{ord(character):x}}}"
