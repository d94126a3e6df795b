"""Numbers of things, in words for people."""

from __future__ import annotations


def counted(n: int, noun: str) -> str:
    """'1 incident', '2 incidents'."""
    return f"{n} {noun}{'' if n == 1 else 's'}"
