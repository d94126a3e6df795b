"""Step 4: the plan as it is put up for approval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlrunbook.domain.actions import Path, Plan, PlanKind
from mlrunbook.domain.investigation.diagnosis import Diagnosis
from mlrunbook.domain.investigation.facts import DiagnosisFacts
from mlrunbook.domain.records import Record, Recorded
from mlrunbook.domain.resolution.paths import PROPOSERS, Situation

OBJECTION = "objection"  # of a plan's facts: what speaks against it, first in every text that asks for the decision


@dataclass(frozen=True)
class ResolutionPlan(Recorded, key=Record.RESOLUTION_PLAN):
    """`digest` None: there is no safe automatic path, and `why` says so to the person who decides instead."""

    digest: str | None
    path: Path | None = None
    why: str | None = None


@dataclass(frozen=True)
class ReturnPlan(Recorded, key=Record.RETURN_PLAN):
    """Of a promotion that did not hold: back to the version that served before."""

    digest: str
    promoted: str


@dataclass(frozen=True)
class UndoPlan(Recorded, key=Record.UNDO):
    """What of the containment is taken back once recovery is verified. `undoes`: the action that each of the plan's takes back; `kept`: why
    the rest stays. `digest` None: nothing is taken back."""

    digest: str | None
    undoes: tuple[str | None, ...]
    kept: Mapping[str, str]


def propose(situation: Situation) -> Plan | None:
    """The resolution plan, or None where there is no safe automatic path (`diagnosis.sentence` says what to look at)."""
    diagnosis = situation.diagnosis
    if diagnosis.path is None or (proposed := PROPOSERS[diagnosis.path](situation)) is None:
        return None
    return Plan(
        situation.incident_id,
        PlanKind.RESOLUTION,
        situation.model,
        proposed.changes.actions,
        (*([diagnosis.objection] if diagnosis.objection else []), diagnosis.sentence, *proposed.changes.reasons),
        path=diagnosis.path,
        expected=proposed.expected,
        facts=_shown(diagnosis, situation.facts) | dict(proposed.facts),
    )


def _shown(diagnosis: Diagnosis, facts: DiagnosisFacts) -> dict[str, Any]:
    """The numbers the approver sees."""
    shown: dict[str, Any] = {
        "cause": str(diagnosis.top.cause),
        "score": diagnosis.top.score,
        "against": list(diagnosis.top.against),
        "not_checked": list(diagnosis.top.open),
        "model_version": facts.model_version,
    }
    if diagnosis.objection:
        shown[OBJECTION] = diagnosis.objection
    if facts.metrics:
        now, before = facts.metrics.current.confusion, facts.metrics.baseline.confusion
        shown |= {"f1_baseline": _round(before.f1), "f1_now": _round(now.f1), "precision_now": _round(now.precision)}
        shown |= {"recall_now": _round(now.recall), "known_outcomes": now.n, "known_failures": now.positives}
    return shown


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
