"""An audit as one HTML page that needs nothing else: a summary on one page of A4, then every section with its charts and evidence."""

from __future__ import annotations

import re
from itertools import groupby

from markupsafe import Markup, escape

from mlrunbook.adapters.reports import charts
from mlrunbook.base import pages
from mlrunbook.domain.audits.section import Audit, Chart, Section
from mlrunbook.domain.communication.messages import line

MEDIA_TYPE = "text/html; charset=utf-8"
MOST_WORDS = 150  # characters of a sentence in the summary, which must stay one page; the section has it whole
MOST_ROWS = 200
UNBROKEN = 14  # characters of a cell that stays on one line: a figure cut in two reads as two


def render(audit: Audit) -> bytes:
    """The page, UTF-8. Every text of it is escaped."""
    page = pages.render(
        __package__,
        "audit.html.j2",
        audit=audit,
        groups=[(name, list(sections)) for name, sections in groupby(audit.sections, key=lambda s: s.group)],
        draw=_draw,
        handling=_handling,
        with_commands=_with_commands,
        capital=_capital,
        cut=_cut,
        most_rows=MOST_ROWS,
        unbroken=UNBROKEN,
    )
    return page.encode()


def _draw(chart: Chart) -> Markup:
    return Markup(charts.draw(chart))  # noqa: S704 - our own SVG, its texts escaped


def _handling(one: Section) -> str:
    return (f"Handled as {one.incident_id}. {one.note}" if one.incident_id else one.note).strip()


def _with_commands(words: str) -> Markup:
    """Escaped, with `commands` set as such."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(line(words)))))  # noqa: S704 - escaped just now


def _capital(sentence: str) -> str:
    """Begun with a capital, unless a path or a figure begins it."""
    return sentence[:1].upper() + sentence[1:] if sentence.split(" ", 1)[0].rstrip(":,").isalpha() else sentence


def _cut(sentence: str) -> str:
    return sentence if len(sentence) <= MOST_WORDS else f"{sentence[: MOST_WORDS - 1].rstrip()}…"
