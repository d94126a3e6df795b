"""Text from outside, made fit to store and to show on a terminal."""

from __future__ import annotations

import unicodedata

MAX_TEXT = 4_000
_DROPPED = ("Cc", "Cs")  # control characters (NUL breaks the database, escapes a terminal) and lone surrogates (no UTF-8)


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """`text` without control characters except newline, stripped, at most `limit` characters long."""
    kept = "".join(c for c in text.replace("\t", " ") if c == "\n" or unicodedata.category(c) not in _DROPPED).strip()
    return kept if len(kept) <= limit else kept[: limit - 1] + "…"
