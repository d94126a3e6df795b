"""An alert of any format, and what several of them report together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mlrunbook.domain.detection.reports import Origin, Report
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.policy.alerting import MISSED_FAILURE_ALERT
from mlrunbook.domain.policy.intake import OWN
from mlrunbook.domain.policy.policy import Policy

# An alert's level is not the incident's severity, only a first guess until triage has measured. Unknown: medium, so that it pages.
FIRST_GUESS = {"critical": Severity.HIGH, "warning": Severity.MEDIUM, "info": Severity.LOW, "none": Severity.LOW}
PROVEN_AS = "proven_as"  # in the body of an alert that came from outside
INCIDENT_TYPE = "incident_type"  # in the body, or a label: the sender's word for it
PLAUSIBLE_SINCE = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class NormalisedAlert:
    """One alert of any format. (fingerprint, starts_at) is its identity; `level` and `incident_type` are the sender's words.

    `start_is_stated` False: the sender names no start that stays the same. Then what fires goes on with the alert of this fingerprint that
    has not been resolved, and `starts_at` is only the start of a new one.

    `body` holds what is kept of it: at least "labels" and "annotations", each string to string.
    """

    fingerprint: str
    firing: bool
    name: str
    model: str
    model_version: str | None
    level: str
    incident_type: str | None
    summary: str
    starts_at: datetime
    body: Mapping[str, Any]
    start_is_stated: bool = True
    part: Any = field(default=None, compare=False)  # of the message it stood in; None: the message is all about it

    @property
    def severity(self) -> Severity:
        if self.name == MISSED_FAILURE_ALERT:  # no measurement can make it less, so nobody's page waits for one
            return Severity.CRITICAL
        return FIRST_GUESS.get(self.level, Severity.MEDIUM)

    def type(self, policy: Policy) -> IncidentType:
        if known := policy.type_of_alert(self.name):
            return known
        if self.incident_type in {t.value for t in IncidentType}:
            return IncidentType(self.incident_type)
        return IncidentType.PERFORMANCE_DEGRADATION


def type_of(policy: Policy, body: Mapping[str, Any]) -> IncidentType | None:
    """What an alert is about, of what is kept of it: by its name, else by the sender's word; None: neither says."""
    labels = body.get("labels", {})
    said = str(body.get(INCIDENT_TYPE) or labels.get(INCIDENT_TYPE, ""))
    return policy.type_of_alert(str(labels.get("alertname", ""))) or (IncidentType(said) if said in set(IncidentType) else None)


def proven_as(body: Mapping[str, Any]) -> str:
    """The sender that an alert was proven to come from, of what is kept of it; our own where nothing is noted."""
    return str(body.get(PROVEN_AS, OWN))


def report_of(policy: Policy, source: str, alerts: Sequence[NormalisedAlert], now: datetime) -> Report:
    """One report of several alerts of one model and family: the worst speaks for them."""
    worst = max(alerts, key=lambda a: a.severity.rank)
    others = len({a.fingerprint for a in alerts}) - 1
    starts = [a.starts_at for a in alerts if PLAUSIBLE_SINCE <= a.starts_at <= now]
    return Report(
        model=worst.model,
        type=worst.type(policy),
        family=policy.family_of(worst.type(policy)),
        severity=worst.severity,
        description=worst.summary + (f" (and {others} more alert{'s' if others > 1 else ''})" if others else ""),
        reported_by=source,
        model_version=next((a.model_version for a in [worst, *alerts] if a.model_version), None),
        started_at=min(starts, default=None),
        origin=Origin.ALERT,
        proven_as=proven_as(worst.body),
    )
