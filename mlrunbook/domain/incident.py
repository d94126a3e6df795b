"""The incident: its vocabulary and the one function that changes its status."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from mlrunbook.domain.errors import Invalid


class Severity(StrEnum):
    """Runbook, "Severity Levels", from low to critical."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        return list(Severity).index(self)

    def at_least(self, other: Severity) -> bool:
        return self.rank >= other.rank


class IncidentType(StrEnum):
    """Runbook, "Incident Types"."""

    PREDICTION_ERROR = "prediction_error"
    PERFORMANCE_DEGRADATION = "performance_degradation"
    BIAS_FAIRNESS = "bias_fairness"
    SECURITY = "security"
    COMPLIANCE = "compliance"
    INFRASTRUCTURE = "infrastructure"


class Subtype(StrEnum):
    """What kind of security or compliance incident it is (runbook, "Incident Types", 4 and 5)."""

    UNAUTHORISED_ACCESS = "unauthorised_access"
    ADVERSARIAL_ATTACK = "adversarial_attack"
    DATA_LEAKAGE = "data_leakage"
    REGULATORY_VIOLATION = "regulatory_violation"
    PRIVACY_BREACH = "privacy_breach"
    AUDIT_FAILURE = "audit_failure"

    @property
    def words(self) -> str:
        return self.value.replace("_", " ")

    @property
    def type(self) -> IncidentType:
        security = (Subtype.UNAUTHORISED_ACCESS, Subtype.ADVERSARIAL_ATTACK, Subtype.DATA_LEAKAGE)
        return IncidentType.SECURITY if self in security else IncidentType.COMPLIANCE


class ClockName(StrEnum):
    """The laws that give a deadline for telling an authority: see `mlrunbook.domain.communication.regulatory`."""

    GDPR = "gdpr"
    AI_ACT = "ai_act"


class Case(StrEnum):
    """What the incident is to such a law. Only a person can say that it is more than `general`."""

    PERSONAL_DATA = "personal_data"  # GDPR
    GENERAL = "general"  # AI Act, and so the rest
    CRITICAL_INFRASTRUCTURE = "critical_infrastructure"
    WIDESPREAD = "widespread"
    DEATH = "death"


class ItemStatus(StrEnum):
    """What may become of an action item of a review."""

    NOT_STARTED = "not started"
    IN_PROGRESS = "in progress"
    DONE = "done"
    DROPPED = "dropped"  # not done, for a reason

    @property
    def is_open(self) -> bool:
        return self in (ItemStatus.NOT_STARTED, ItemStatus.IN_PROGRESS)


class Status(StrEnum):
    DETECTED = "detected"
    INVESTIGATING = "investigating"
    CONTAINED = "contained"
    RESOLVING = "resolving"
    MONITORING = "monitoring"
    RESOLVED = "resolved"
    CLOSED = "closed"
    FALSE_ALARM = "false_alarm"

    @property
    def is_open(self) -> bool:
        return self not in (Status.CLOSED, Status.FALSE_ALARM)


# Where each status may go next. Steps may be skipped forward (a medium incident has no containment); a failed recovery check goes back
# from monitoring to investigating, and so does a closed incident when outcomes that come later disagree with its recovery.
TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.DETECTED: frozenset({Status.INVESTIGATING, Status.FALSE_ALARM, Status.RESOLVED}),
    Status.INVESTIGATING: frozenset({Status.CONTAINED, Status.RESOLVING, Status.MONITORING, Status.FALSE_ALARM, Status.RESOLVED}),
    Status.CONTAINED: frozenset({Status.INVESTIGATING, Status.RESOLVING, Status.MONITORING, Status.RESOLVED, Status.FALSE_ALARM}),
    Status.RESOLVING: frozenset({Status.MONITORING, Status.INVESTIGATING, Status.CONTAINED, Status.RESOLVED}),
    Status.MONITORING: frozenset({Status.RESOLVED, Status.INVESTIGATING}),
    Status.RESOLVED: frozenset({Status.CLOSED, Status.INVESTIGATING}),
    Status.CLOSED: frozenset({Status.INVESTIGATING}),
    Status.FALSE_ALARM: frozenset(),
}


@dataclass(frozen=True)
class Incident:
    """One incident as the store holds it. Times are aware UTC; None means not yet."""

    id: str
    model: str
    type: IncidentType
    family: str
    severity: Severity
    status: Status
    description: str
    impact: str
    reported_by: str
    detected_at: datetime
    model_version: str | None = None
    started_at: datetime | None = None
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None
    contained_at: datetime | None = None
    resolved_at: datetime | None = None
    closed_at: datetime | None = None
    review_due_at: datetime | None = None
    generation: int = 1
    alert_count: int = 0


class Ended(StrEnum):
    """How a run of the runbook on an incident ended: over, waiting for time to pass, or waiting for people."""

    CLOSED = "closed"
    FALSE_ALARM = "false alarm"
    NOT_OURS = "not ours"
    SHADOWING = "waiting for the shadow"
    UNPROVEN = "not proven yet"
    TOO_EARLY = "too early to say"
    NO_PLAN = "waiting for a human"
    REJECTED = "rejected"
    STILL_ISOLATED = "still isolated"
    NOT_RECOVERED = "not recovered"
    HELD = "held"
    OBSERVED = "observed"


@dataclass(frozen=True)
class Outcome:
    """What a run of the runbook came to, with the sentence that says why."""

    incident_id: str
    ended: Ended
    sentence: str

    def __str__(self) -> str:
        return f"{self.incident_id}: {self.sentence}"


def transition(current: Status, to: Status) -> Status:
    """Return `to`, or raise Invalid when the runbook has no such step. Staying put is allowed (steps repeat)."""
    if to is current or to in TRANSITIONS[current]:
        return to
    allowed = ", ".join(sorted(TRANSITIONS[current])) or "nothing: it is final"
    raise Invalid(f"an incident that is {current} cannot become {to} (it may become {allowed})", field="status")
