"""Secrets in what others wrote, blacked out before it is kept as evidence or shown."""

from __future__ import annotations

import re
from typing import Any

BLACKED_OUT = "[secret removed]"

_KEY = r"(?:password|passwd|passphrase|secret|token|api[ _-]?key|access[_-]?key|private[_-]?key|credentials?|authorization|cookie)"
_NAMED = re.compile(_KEY, re.IGNORECASE)
# (what a secret looks like, what stays of it). Whoever sends alerts or asks for predictions writes some of the text, and containment waits
# for the evidence: every repetition has a limit, or ends where the next match could begin.
_SECRETS: tuple[tuple[re.Pattern[bytes], bytes], ...] = tuple(
    (re.compile(pattern.encode(), re.IGNORECASE | re.DOTALL), kept.encode())
    for pattern, kept in (
        (r"mlrb_[0-9a-f]{8}_[\w-]{20,}", BLACKED_OUT),
        (r"\b(Bearer|Basic) {1,20}[\w.~+/=-]{8,}", rf"\1 {BLACKED_OUT}"),
        (r"(\b[a-z][a-z0-9+.-]{0,30}://[^\s:/@\"]{0,200}):[^\s/@\"]{1,500}@", rf"\1:{BLACKED_OUT}@"),
        (rf"({_KEY}[\w-]{{0,60}}\\?[\"']?\s{{0,20}}[:=]\s{{0,20}}\\?[\"'])[^\"'\\]{{4,}}", rf"\1{BLACKED_OUT}"),
        (rf"({_KEY}[\w-]{{0,60}}=)[^\s\"'&;,\[]{{4,}}", rf"\1{BLACKED_OUT}"),
        (r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^-]*(?:-(?!----)[^-]*)*(?:-----END [A-Z ]{0,40}PRIVATE KEY-----)?", BLACKED_OUT),
    )
)


def without_secrets(content: bytes) -> tuple[bytes, int]:
    """The content with what looks like a secret blacked out, and how many there were."""
    removed = 0
    for pattern, kept in _SECRETS:
        content, count = pattern.subn(kept, content)
        removed += count
    return content, removed


def shown(value: Any, name: str = "") -> Any:
    """The same JSON without secrets: neither in a text, nor whatever stands under a name that says it is one.

    >>> shown({"api_key": ["abc"], "url": "https://ann:pw@example.com/?token=abcd&x=1", "times": 3})
    {'api_key': '[secret removed]', 'url': 'https://ann:[secret removed]@example.com/?token=[secret removed]&x=1', 'times': 3}
    """
    if name and value and _NAMED.search(name):
        return BLACKED_OUT
    if isinstance(value, dict):
        return {shown(str(key)): shown(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list):
        return [shown(inner) for inner in value]
    if isinstance(value, str) and len(value) > 3:
        return without_secrets(value.encode(errors="replace"))[0].decode(errors="replace")
    return value
