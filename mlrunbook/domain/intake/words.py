"""Words of many senders, compared so that spelling does not matter: "SEV-1", "Sev 1" and "sev1" are one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

_SEPARATORS = re.compile(r"[\W_]+")
_ARROW = re.compile(r"\s*(?:->|=>|\u2192)\s*")
_NOT = frozenset({"not", "non", "no", "none", "un"})
_NO_VALUE = frozenset({"null", "none", "nil", "nan", "undefined", "unknown", "novalue", "notavailable", "na", "true", "false"})
_TEMPLATE = re.compile(r"\$\{?[A-Z][A-Z0-9_.]*\}?|\{\{.*\}\}|%\w+%|\$\w+\$")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_OVER = frozenset({"resolved", "recovered", "recovery", "cleared", "closed"})  # whatever it was before: "ALERT_DEGRADED_RECOVERY"
_DENIED = _NOT | {"fail", "fails", "failed", "failing", "failure", "unable", "cannot", "never", "until", "if", "when", "unless"}
_DENIED |= {"for", "retry", "pending", "with", "but", "partially", "partial"}


def plain(word: str) -> str:
    """Small letters and digits alone.

    >>> plain("SEV-1"), plain("In Service")
    ('sev1', 'inservice')
    """
    return _SEPARATORS.sub("", word.casefold())


def is_placeholder(said: str) -> bool:
    """Whether it only stands where a sender's template found nothing, and so names nothing.

    >>> [is_placeholder(one) for one in ("None", "<no value>", "$ALERT_CYCLE_KEY", "{{ model }}", "nonesuch")]
    [True, True, True, True, False]
    """
    return plain(said) in _NO_VALUE or (bool(said.strip()) and not plain(said)) or _TEMPLATE.fullmatch(said.strip()) is not None


@lru_cache(maxsize=64)
def _table(words: tuple[tuple[str, tuple[str, ...]], ...]) -> dict[str, str]:
    return {plain(word): meaning for meaning, listed in words for word in listed}


def meaning(said: str, words: Mapping[str, Sequence[str]]) -> str | None:
    """Which of the meanings lists the word, whole or as a part of what was said; None where none does, or several do, or it is denied.

    >>> meaning("P1 - Urgent", {"critical": ["p1", "urgent"], "info": ["p5"]})
    'critical'
    >>> meaning("not critical", {"critical": ["critical"]}) is None
    True
    """
    table = _by_word(words)
    if (whole := table.get(plain(said))) is not None:
        return whole
    parts = _parts(said)
    pairs = [first + second for first, second in pairwise(parts)]  # "sev 1 outage"
    found = {table[part] for part in (*pairs, *parts) if part in table}
    return found.pop() if len(found) == 1 and not _NOT.intersection(parts) else None


def state_in(said: str, words: Mapping[str, Sequence[str]], *, over: str) -> str | None:
    """As `meaning`, of how an alert stands: the newer of "OK -> CRIT" counts, and an end said first or last counts whatever it ends.

    >>> table = {"firing": ["critical", "crit"], "resolved": ["resolved", "ok"]}
    >>> state_in("ResolvedCritical", table, over="resolved"), state_in("OK -> CRIT", table, over="resolved")
    ('resolved', 'firing')
    """
    said = _ARROW.split(said)[-1]
    if (whole := _by_word(words).get(plain(said))) is not None:
        return whole
    found, parts = meaning(said, words), _parts(said)
    denied = len(parts) > 1 and bool(_DENIED.intersection(parts))
    if found is not None:
        return None if denied and found == over else found
    return over if parts and not denied and _OVER.intersection((parts[0], parts[-1])) else None


def _by_word(words: Mapping[str, Sequence[str]]) -> dict[str, str]:
    return _table(tuple((key, tuple(listed)) for key, listed in words.items()))


def _parts(said: str) -> list[str]:
    return [part for part in _SEPARATORS.split(_HUMP.sub(" ", said).casefold()) if part]
