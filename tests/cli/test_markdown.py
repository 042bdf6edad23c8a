"""Whatever a value holds, GitHub shows it as itself: checked with a Markdown parser that has GitHub's extensions."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from cli.markdown import block, clip, code, visible

NASTY = [
    "`a` ``b`` ```",
    "a | b || c",
    "<script>alert(1)</script><!-- x --> </code></details>",
    "@octocat @org/team #12 owner/name#3",
    "[click](https://evil.example) ![x](y) [1](z) [a]: b",
    "https://evil.example www.evil.example mailto:a@b.example",
    "**bold** _emphasis_ ~~gone~~ $math$ \\| \\` &amp; &#64;",
    "-->\n\n# heading\n\n---\n> quote",
    "\u202egnp.exe\u202c\x1b[31m\x00",
]
texts = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="`|<>@#*_~[]()!\\&;:/.\n -$\"'ahtpw0", max_size=80),
    st.sampled_from(NASTY),
)
parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def shown_by(text: str) -> str:
    return visible(text.replace("\r\n", "\n").replace("\n", "⏎"))


def leaves(tokens: list[Token]) -> list[Token]:
    return [leaf for token in tokens for leaf in (leaves(token.children) if token.children else [token])]


@given(texts)
@example("a_b_c")
@example("x[0](y)")
@example("[secret] [computed] spec.hosts[0]")
def test_code_shows_the_text_and_nothing_else(text: str) -> None:
    table = parser.parse(f"| a | b |\n|---|---|\n| {code(text)} | end |")
    cells = [token for token in table if token.type == "inline"]
    assert [cell.content for cell in cells[:2]] == ["a", "b"]
    assert len(cells) == 4
    inner = cells[2].children or []
    assert [token.content for token in inner if token.type == "html_inline"] == ["<code>", "</code>"]
    assert {token.type for token in inner} <= {"html_inline", "text", "text_special"}
    seen = "".join(token.content for token in inner if token.type != "html_inline")
    assert seen.strip() == shown_by(text).strip()


@given(texts)
def test_code_gives_nothing_to_link_or_mention(text: str) -> None:
    assert not re.search(r"@|#(?!\d+;)|://|(?i:www\.)|mailto:", code(text))


@given(texts)
def test_code_is_one_line(text: str) -> None:
    assert len(code(text).splitlines()) == 1


@given(texts)
def test_block_cannot_be_left(text: str) -> None:
    tokens = parser.parse(f"{block(text, 1000)}\n\nafter")
    assert [token.type for token in tokens] == ["fence", "paragraph_open", "inline", "paragraph_close"]
    assert tokens[0].content == visible(text.replace("\r\n", "\n"), keep="\n\t") + "\n"


@given(st.text(max_size=50), st.integers(1, 60))
def test_clip_keeps_what_fits_and_says_what_it_cut(text: str, length: int) -> None:
    clipped = clip(text, length)
    if len(text) <= length:
        assert clipped == text
    else:
        assert clipped.startswith(text[:length]) and f"({len(text)} characters)" in clipped


def test_legible_values_stay_legible() -> None:
    assert code("spec.servers[0].tls") == "<code>spec.servers[0].tls</code>"
    assert code("a_b.svc.cluster.local:5432") == "<code>a_b.svc.cluster.local:5432</code>"
    assert code("[secret]") == "<code>[secret]</code>"


def test_reordering_characters_are_shown() -> None:
    assert code("a\u202eb") == "<code>a&#92;u&#123;202e&#125;b</code>"
