"""Markdown that people and alerts wrote, as HTML that shows text and nothing else: no HTML of its own, no picture, no script."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from mlrunbook.gateway.console.forms import lines

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

DEEPEST = 6
LONGEST = 50_000  # characters; a review has a few thousand, and a text made to be slow takes a second at this length


@lru_cache(maxsize=32)
def html(markdown: str) -> Markup:
    """Headings are one level deeper than written: the page has its own first. Links open without telling where they were followed.

    A longer text stays as it is written.
    """
    if len(markdown) > LONGEST:
        return Markup("<pre>") + lines(markdown) + Markup("</pre>")
    return Markup(_reader().render(markdown))  # noqa: S704  HTML in it is escaped


@cache
def _reader() -> MarkdownIt:
    from markdown_it import MarkdownIt

    reader = MarkdownIt("commonmark", {"html": False, "maxNesting": 20}).enable("table").disable("image")
    reader.add_render_rule("heading_open", _heading)
    reader.add_render_rule("heading_close", _heading)
    reader.add_render_rule("link_open", _link)
    for cell in ("th_open", "td_open"):
        reader.add_render_rule(cell, _cell)
    return reader


def _heading(self: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    tokens[at].tag = f"h{min(int(tokens[at].tag[1:]) + 1, DEEPEST)}"
    return str(self.renderToken(tokens, at, options, env))


def _link(self: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    tokens[at].attrSet("rel", "nofollow noopener noreferrer")
    return str(self.renderToken(tokens, at, options, env))


def _cell(self: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    tokens[at].attrs.pop("style", None)  # an alignment: the page allows no style but its own
    return str(self.renderToken(tokens, at, options, env))
