"""Alerts that nobody wants to hear for a while: silences, and maintenance windows. Stored and counted, never lost."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from mlrunbook.domain.incident import IncidentType
from mlrunbook.domain.policy.alerting import Maintenance, Silence


class Quiet(NamedTuple):
    until: datetime
    sentence: str


def quiet(
    model: str, name: str, type_: IncidentType, now: datetime, silences: Iterable[Silence], maintenance: Iterable[Maintenance]
) -> Quiet | None:
    """Until when nobody is told of this alert, and why; None where it is heard."""
    found = [Quiet(s.end, f"silenced by the {s.created_by.words}: {s.reason}") for s in silences if s.covers(model, name, type_, now)]
    found += [Quiet(m.end, f"maintenance, by the {m.created_by.words}: {m.reason}") for m in maintenance if m.covers(model, name, now)]
    return max(found, key=lambda q: q.until, default=None)
