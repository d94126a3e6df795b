"""What triage leaves for the steps that follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mlrunbook.domain.communication.messages import Figures
from mlrunbook.domain.detection.severity import Assessment
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.records import Record, Recorded
from mlrunbook.domain.tally import AnyTally


@dataclass(frozen=True)
class Affected:
    """`pending_work_orders` None: the platform did not say."""

    model: str
    version: str | None = None
    asset_types: tuple[str, ...] = ()
    pending_work_orders: int | None = None


@dataclass(frozen=True)
class Backed:
    """What triage finds without the word of those whom policy does not trust for containment, and who they are."""

    assessment: Assessment
    without: tuple[str, ...]


@dataclass(frozen=True)
class Triage(Recorded, key=Record.TRIAGE):
    """`baseline`: how the model did before the incident; the platform's own baseline moves on, over the bad hours too. `backed`: what
    containment by itself rests on; None: on all of it."""

    real: bool
    severity: Severity
    type: IncidentType
    summary: str
    assessment: Assessment
    affected: Affected
    baseline: AnyTally | None = None
    baseline_by_type: Mapping[str, AnyTally] = field(default_factory=dict)
    figures: Figures = field(default_factory=Figures)
    backed: Backed | None = None
    has_work_orders: bool = True  # the platform keeps some of this model

    def judged_anew(self, found: Assessment, backed: Backed | None) -> Triage:
        summary = "; ".join(found.reasons)
        return replace(self, severity=found.severity, type=found.type, assessment=found, summary=summary, backed=backed)
