"""How moments, and texts of several lines, are shown on a page."""

from __future__ import annotations

from datetime import datetime, timedelta

from markupsafe import Markup, escape

from mlrunbook.domain.communication.durations import in_words, utc
from mlrunbook.domain.communication.messages import line

LONGEST_LINE = 2_000


def clock(at: datetime) -> str:
    """
    >>> from datetime import UTC
    >>> clock(datetime(2026, 3, 1, 12, 5, 9, tzinfo=UTC))
    '2026-03-01 12:05 UTC'
    """
    return f"{utc(at):%Y-%m-%d %H:%M} UTC"


def ago(at: datetime, now: datetime) -> str:
    """The largest unit alone, of what was or of what will be.

    >>> from datetime import UTC
    >>> now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    >>> ago(now - timedelta(hours=3, minutes=15), now), ago(now + timedelta(days=2), now), ago(now, now)
    ('3 hours ago', 'in 2 days', 'just now')
    """
    span = now - at
    if abs(span) < timedelta(minutes=1):
        return "just now"
    count, unit, *_ = in_words(abs(span)).split()
    return f"{count} {unit} ago" if span > timedelta(0) else f"in {count} {unit}"


def preformatted(text: str) -> Markup:
    """Escaped, with its lines and how far each is indented; nothing in it reverses or hides what is read.

    >>> preformatted("a:\n  b: <script>")
    Markup('a:\n  b: &lt;script&gt;')
    """
    lines = [(" " * (len(row) - len(row.lstrip(" "))), line(row, LONGEST_LINE)) for row in text.splitlines()]
    return escape("\n".join(indent + said for indent, said in lines))
