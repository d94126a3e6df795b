"""Names with `*` and `?` as shells have them; nothing else is special."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache


def is_pattern(name: str) -> bool:
    return "*" in name or "?" in name


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    """Each piece between two `*` is looked for once, from left to right, and never anew: what is compared may come from a stranger, and a
    text made for it would else take seconds, in which nothing else of the process runs."""
    first, *others = ("".join("." if c == "?" else re.escape(c) for c in piece) for piece in pattern.split("*"))
    if not others:
        return re.compile(first, re.DOTALL)
    *between, last = others
    return re.compile(first + "".join(f"(?>.*?{piece})" for piece in between if piece) + f".*{last}", re.DOTALL)


def fits(name: str, pattern: str) -> bool:
    """Whether the name fits the pattern; only `*` and `?` are special.

    >>> fits("churn_eu", "churn_*"), fits("churn[1]", "churn[1]"), fits("churn1", "churn[1]")
    (True, True, False)
    """
    return _compiled(pattern).fullmatch(name) is not None


def covers(wide: str, narrow: str) -> bool:
    """Whether every name that fits `narrow` fits `wide`.

    >>> covers("service:*", "service:Pump*"), covers("service:Pump", "service:*"), covers("a?", "a*")
    (True, False, False)
    """
    # Characters that stand in no pattern: only what is wild fits them.
    return all(fits(narrow.replace("?", "\ue000").replace("*", text), wide) for text in ("", "\ue001", "\ue002" * 7))


def fitting(name: str, patterns: Iterable[str]) -> list[str]:
    """The patterns that the name fits, the most specific first: the exact name, then by how many letters are not wild."""
    found = [p for p in patterns if p == name or (is_pattern(p) and fits(name, p))]
    return sorted(found, key=lambda p: (p == name, len(p) - p.count("*") - p.count("?"), p), reverse=True)


def most_specific(name: str, patterns: Iterable[str]) -> str | None:
    """The first of `fitting`; None where none fits."""
    return next(iter(fitting(name, patterns)), None)
