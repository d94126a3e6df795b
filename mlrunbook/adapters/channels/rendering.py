"""A message as its channel's format writes plain text. What comes from outside stays text: it calls nobody, hides no address behind a link,
and shows its own characters.

Two means. A word joiner, which nobody sees, stands inside whatever some service reads as a mention, a link with a text of its own, a tag or
an entity; this holds also where a service's parser is not known to the last rule. Then the characters of markup are escaped as the format
wants. Where a service takes text without markup, it is sent that.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Iterator
from enum import Enum

JOINER = "\u2060"
LONGEST = 8  # characters that one may become: "&amp;", and the joiners around it
_EMAIL = r"(?<![\w.+-])[\w.+-]+@(?!(?:everyone|here|channel|all|room|subteam)\b)[\w-]+(?:\.[\w-]+)+"
_ACTIVE = re.compile(
    rf"(?P<email>{_EMAIL})"
    r"|(?P<opens>@(?=\S)"  # a person, a group
    r"|<(?=\S)"  # a tag, Slack's <!here> and <url|text>, Discord's <@&role>
    r"|&(?=#?\w+;)"  # an entity
    r"|\](?=[(\[:]))"  # a link with a text of its own
)
_EMOJI = re.compile(r":(?=[\w+-]{1,100}:)(?![\d_-]{1,100}:)")  # a name of it, and no time of day
# An underscore inside a word marks nothing, nor one that begins a part of an address: snake_case and addresses stay as they are.
_MARKDOWN = re.compile(r"[\\`*\[\]~]|\|(?=\|)|(?<=\|)\||(?<![^\W_])(?<!/)_|_(?![^\W_])")
_LINE_START = re.compile(r"^(?=[^\S\n]*(?:[#>+=|-]|:-|\d+[.)]))", re.M)


class Format(Enum):
    """How a service reads what it is sent."""

    TEXT = "text"
    MARKDOWN = "markdown"
    SLACK = "slack"
    SLACK_TITLE = "slack_title"  # apprise escapes it, or sends it where nothing is parsed but emoji
    HTML = "html"


# Services (apprise's schemas) that read markup in every text. All others are sent plain text as such.
_READS: dict[Format, frozenset[str]] = {
    Format.SLACK: frozenset({"slack"}),
    Format.HTML: frozenset({"tgram"}),
    Format.MARKDOWN: frozenset(
        {
            *("discord", "fluxer", "guilded", "hassio", "hassios", "humhub", "humhubs", "misskey", "misskeys", "mmost", "mmosts"),
            *("msteams", "nctalk", "nctalks", "notifiarr", "reddit", "revolt", "rocket", "rockets", "ryver", "schan", "twist"),
            *("workflow", "workflows", "zulip"),
        }
    ),
}


def format_of(schemas: set[str]) -> Format:
    return next((form for form, names in _READS.items() if names & schemas), Format.TEXT)


def block(text: str) -> str:
    """`text` as lines of printable characters: control, format and surrogate characters are gone, any other break is a space."""
    return "\n".join("".join(map(_printable, one)).rstrip() for one in text.replace("\r\n", "\n").split("\n"))


def _printable(char: str) -> str:
    if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return " " if char.isspace() else ""
    return char


def inert(text: str) -> str:
    """`text` with a word joiner in whatever would be a mention, a link, a tag or an entity. Mail addresses stay whole."""
    return _ACTIVE.sub(lambda found: found["email"] or found["opens"] + JOINER, text)


def rendered(text: str, form: Format) -> str:
    """Printable plain text as the format writes it."""
    return _RENDER[form](inert(text))


def _markdown(text: str) -> str:
    spelt = _MARKDOWN.sub(r"\\\g<0>", _no_emoji(text))
    return _LINE_START.sub(JOINER, spelt)


def _slack(text: str) -> str:
    return html.escape(_no_emoji(text), quote=False)


def _no_emoji(text: str) -> str:
    return _EMOJI.sub(":" + JOINER, text)


_RENDER: dict[Format, Callable[[str], str]] = {
    Format.TEXT: str,
    Format.MARKDOWN: _markdown,
    Format.SLACK: _slack,
    Format.SLACK_TITLE: _no_emoji,
    Format.HTML: lambda text: html.escape(text, quote=False),
}


def cut(text: str, form: Format, limit: int) -> str:
    """As much of one line as is within the limit once it is rendered; rendered."""
    whole = rendered(text, form)
    while len(whole) > limit and text:
        text = text[: max(0, len(text) - max(1, (len(whole) - limit) // 4))]
        whole = rendered(f"{text.rstrip()}…", form)
    return whole


def parts(text: str, form: Format, limit: int) -> Iterator[str]:
    """The text in rendered parts within the limit, broken between lines where that is possible: an escape broken in two escapes nothing."""
    part: list[str] = []
    size = 0
    for piece in _pieces(text, form, limit):
        if size + len(piece) + 1 > limit and any(map(str.strip, part)):
            yield "\n".join(part)
            part, size = [], 0
        part.append(piece)
        size += len(piece) + 1
    if any(map(str.strip, part)):
        yield "\n".join(part)


def _pieces(text: str, form: Format, limit: int) -> Iterator[str]:
    """Every line, rendered; one too long for the limit in several."""
    for one in text.split("\n"):
        whole = rendered(one, form)
        if len(whole) < limit:
            yield whole
            continue
        step = max(1, limit // LONGEST)
        yield from (rendered(one[at : at + step], form) for at in range(0, len(one), step))
