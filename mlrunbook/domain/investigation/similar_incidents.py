"""Incidents of the past that resemble one, and what fixed them: for whoever decides about a plan."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mlrunbook.domain.cause import Cause
from mlrunbook.domain.communication.durations import in_words
from mlrunbook.domain.incident import IncidentType, Severity

SHOWN = 3
NO_LIKENESS = frozenset({Cause.UNKNOWN, Cause.NOTHING_WRONG})  # that two causes are not known makes nothing alike


@dataclass(frozen=True)
class Case:
    """A closed incident. `fixed_by`: what was changed or done by hand, in order; `came_back`: it had to be opened again."""

    incident_id: str
    model: str
    type: IncidentType
    severity: Severity
    cause: Cause | None
    detected_at: datetime
    took: timedelta | None
    fixed_by: tuple[str, ...] = ()
    came_back: bool = False

    @property
    def sentence(self) -> str:
        """What an approver wants to know of it."""
        fixed = "; ".join(self.fixed_by) or "nothing was changed"
        held = ", and came back afterwards" if self.came_back else ""
        took = f"resolved in {in_words(self.took)}" if self.took is not None else "closed without a measured recovery"
        return f"{self.incident_id} of {self.detected_at.astimezone(UTC):%Y-%m-%d} ({self.model}, {self.severity}), {took}: {fixed}{held}"


def find_similar(model: str, type: IncidentType, cause: Cause | None, past: Iterable[Case]) -> list[Case]:
    """Those with the same cause; where the cause is not known, of the same type of this model. This model's first, then the newest."""
    known = cause is not None and cause not in NO_LIKENESS
    found = [case for case in past if (case.cause is cause if known else (case.model, case.type) == (model, type))]
    return sorted(found, key=lambda case: (case.model != model, -case.detected_at.timestamp(), case.incident_id))[:SHOWN]
