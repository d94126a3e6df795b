"""Text from outside, made fit to store and to show on a terminal."""

from __future__ import annotations

import re

MAX_TEXT = 4_000
# Control characters (NUL breaks the database, escapes a terminal; categories Cc, but the newline) and lone surrogates (no UTF-8; Cs).
DROPPED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]+")


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """`text` without control characters except newline, stripped, at most `limit` characters long."""
    kept = DROPPED.sub("", text.replace("\t", " ")).strip()
    return kept if len(kept) <= limit else kept[: limit - 1] + "…"
