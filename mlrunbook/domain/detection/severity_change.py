"""Whether an incident's severity changes on the way, and what a person's word about it means.

More evidence of harm never lowers it; only a person does, with a reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from mlrunbook.domain.actions import Action, Configure, FlagWorkOrders
from mlrunbook.domain.detection.severity import Assessment
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.policy.intake import OWN
from mlrunbook.domain.records import IsoTime, Record, Recorded, SpacedTime

SWITCHES = frozenset({"human_approval", "auto_scheduling", "auto_work_orders"})


@dataclass(frozen=True)
class SeveritySet(Recorded, key=Record.SEVERITY_SET):
    """The last change of severity. `number` counts them; `by_person`: else a measurement has raised it."""

    number: int
    at: IsoTime
    from_: Annotated[Severity, Field(alias="from")]
    to: Severity
    by: str
    why: str
    by_person: bool = False
    moved_s: float = 0.0  # how far the clock had been set back by then
    proven_as: str = OWN

    @property
    def lowered_from(self) -> Severity | None:
        """What a person has lowered it from; None where this raised it, or no person did it."""
        return None if not self.by_person or self.to.at_least(self.from_) else self.from_


@dataclass(frozen=True)
class SeverityDoubted(Recorded, key=Record.SEVERITY_DOUBTED):
    """An alert calls it more severe than triage did: it is measured again."""

    severity: Severity
    at: SpacedTime


@dataclass(frozen=True)
class GradedAgain(Recorded, key=Record.GRADED_AGAIN):
    """Severity was measured again after the investigation. `rose`: containment was planned again."""

    rose: bool


def risen(current: Severity, found: Severity, lowered_from: Severity | None = None) -> Severity:
    """The severity after something was found anew. Where a person has lowered it, what they knew of does not raise it again:
    only more than `lowered_from` does."""
    if lowered_from is not None and lowered_from.at_least(found):
        return current
    return found if found.rank > current.rank else current


def by_word(standing: Assessment, severity: Severity, said: str) -> Assessment:
    """The assessment once a person has set the severity. A higher one is taken at its word as a report is: it needs no measurement, and
    a critical prediction error is a safety risk until someone has looked."""
    if severity.rank < standing.severity.rank:
        return replace(standing, severity=severity, reasons=(said, *standing.reasons))
    risk = severity is Severity.CRITICAL and standing.type is IncidentType.PREDICTION_ERROR
    safety_risk = standing.safety_risk or risk
    reasons = (said, *standing.reasons)
    believed = replace(standing, real=True, insufficient=False, unproven=False, undecided_until=None)
    return replace(believed, severity=severity, safety_risk=safety_risk, reasons=reasons)


def is_measured_as_it_was(executed: Sequence[Action]) -> bool:
    """Our own containment has changed nothing that the model predicts: then what is measured is the failure. Another version, another
    threshold or a server that was stopped is our doing, and no evidence of harm."""
    return all(isinstance(a, FlagWorkOrders) or (isinstance(a, Configure) and set(a.settings) <= SWITCHES) for a in executed)
