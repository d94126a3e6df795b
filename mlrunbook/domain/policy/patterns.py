"""Names with `*` and `?` as shells have them; nothing else is special."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache


def is_pattern(name: str) -> bool:
    return "*" in name or "?" in name


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile("".join(".*" if c == "*" else "." if c == "?" else re.escape(c) for c in pattern), re.DOTALL)


def fits(name: str, pattern: str) -> bool:
    """Whether the name fits the pattern; only `*` and `?` are special.

    >>> fits("churn_eu", "churn_*"), fits("churn[1]", "churn[1]"), fits("churn1", "churn[1]")
    (True, True, False)
    """
    return _compiled(pattern).fullmatch(name) is not None


def most_specific(name: str, patterns: Iterable[str]) -> str | None:
    """The exact name, else the fitting pattern with the most letters that are not wild; None where none fits."""
    fitting = [p for p in patterns if p == name or (is_pattern(p) and fits(name, p))]
    return max(fitting, key=lambda p: (p == name, len(p) - p.count("*") - p.count("?"), p), default=None)
