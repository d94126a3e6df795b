"""An alert of any format, and what several of them report together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from mlrunbook.domain.detection.reports import Origin, Report
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.intake.classification import classify, line_for
from mlrunbook.domain.intake.facts import Facts
from mlrunbook.domain.intake.level import grade
from mlrunbook.domain.intake.naming import Named, Unnamed, identify
from mlrunbook.domain.intake.words import is_placeholder
from mlrunbook.domain.policy.alerting import MISSED_FAILURE_ALERT
from mlrunbook.domain.policy.intake import OWN
from mlrunbook.domain.policy.owned import Standing
from mlrunbook.domain.policy.patterns import is_pattern
from mlrunbook.domain.policy.policy import Policy

# An alert's level is not the incident's severity, only a first guess until triage has measured. Unknown: medium, so that it pages.
FIRST_GUESS = {"critical": Severity.HIGH, "warning": Severity.MEDIUM, "info": Severity.LOW}
PROVEN_AS = "proven_as"  # in the body of an alert that came from outside
INCIDENT_TYPE = "incident_type"  # in the body, or a label: what it is about, where anything says it
MESSAGE = "message"  # in the body: the alert's part of the message as it came, of a long one the beginning
READ = "read"  # in the body: step -> the sentence that says what decided it
PLAUSIBLE_SINCE = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class NormalisedAlert:
    """One alert of any format, judged. (fingerprint, starts_at) is its identity. `level` is one of `LEVELS`, "" where nothing says it;
    `incident_type` None: what its name says. `model` "": the end of an alert that is known by its fingerprint.

    `start_is_stated` False: the sender names no start that stays the same. Then what fires goes on with the alert of this fingerprint that
    has not been resolved, and `starts_at` is only the start of a new one.

    `body` holds what is kept of it: at least "labels" and "annotations", each string to string, and under "read" how it was read.
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
    is_update: bool = False
    part: Any = field(default=None, compare=False)  # of the message it stood in; None: the message is all about it

    @property
    def severity(self) -> Severity:
        if self.name == MISSED_FAILURE_ALERT:  # no measurement can make it less, so nobody's page waits for one
            return Severity.CRITICAL
        return FIRST_GUESS.get(self.level, Severity.MEDIUM)

    def type(self, policy: Policy) -> IncidentType:
        if self.incident_type in {t.value for t in IncidentType}:
            return IncidentType(self.incident_type)
        return classify(self.name, {}, policy.alert_types).value


def judge(facts: Facts, policy: Policy, standings: Mapping[str, Standing], *, received_at: datetime) -> NormalisedAlert | str:
    """The alert, or the sentence that says why it cannot be used. `standings`: of the names of `asked_about`."""
    if is_placeholder(facts.identity):  # every alert of that template would be one
        facts = replace(facts, identity="")
    line = line_for(facts.title, policy.alert_types)
    name = line if line and not is_pattern(line) else facts.title or "alert"
    type_ = classify(facts.title, facts.said, policy.alert_types, unanswered=facts.unanswered)
    level = grade(facts, policy.intake)
    named = identify(facts, policy.intake, standings, about_a_model=type_.is_known)
    if isinstance(named, Unnamed):
        if facts.firing or not facts.identity:
            return f"the alert {named.reason}"
        named = Named("", None, "an end is known by the alert's own number")
    read = {
        "model": named.because,
        "type": type_.because,
        "level": level.because,
        "state": facts.state_because or f"its sender says {facts.state}",
        "identity": f"by its {facts.identified_by or 'number at its sender'}"
        if facts.identity
        else "by its model and title: its sender numbers nothing",
    }
    labels = dict(facts.said) | {"alertname": name}
    kept = {"annotations": {}} | dict(facts.kept) | {"labels": labels, "level": level.value, READ: read}
    return NormalisedAlert(
        fingerprint=facts.identity or fingerprint(named.model, facts.about or facts.title),
        firing=facts.firing,
        name=name,
        model=named.model,
        model_version=facts.model_version or named.version or labels.get("model_version") or labels.get("version"),
        level=level.value,
        incident_type=type_.value.value if type_.is_known else None,
        summary=facts.summary or f"{facts.title or name} on {named.model}",
        starts_at=facts.starts_at or facts.seen_at or received_at,
        body=kept,
        start_is_stated=facts.starts_at is not None,
        is_update=facts.is_update,
        part=facts.part,
    )


def fingerprint(*parts: Any) -> str:
    """The same for the same parts, for senders that give none."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def type_of(policy: Policy, body: Mapping[str, Any]) -> IncidentType | None:
    """What an alert is about, of what is kept of it; None where nothing says it."""
    if body.get(INCIDENT_TYPE) in {t.value for t in IncidentType}:
        return IncidentType(body[INCIDENT_TYPE])
    labels = {str(name): str(value) for name, value in body.get("labels", {}).items()}
    read = classify(labels.get("alertname", ""), labels, policy.alert_types)
    return read.value if read.is_known else None


def how_read(policy: Policy, alert: NormalisedAlert) -> str:
    """Model, type and level with what decided each, as one sentence; "" for an alert of our own monitor, which nobody had to read."""
    because = alert.body.get(READ)
    if not isinstance(because, Mapping):
        return ""
    type_ = alert.type(policy).value.replace("_", " ")
    values = {"model": alert.model or "no model", "type": type_, "level": alert.level or "no level"}
    said = ", ".join(f"{value} ({because.get(step, 'not noted why')})" for step, value in values.items())
    return " ".join(f"Read as {said}".split())  # a sender's word may have lines


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
        read=how_read(policy, worst),
        proven_as=proven_as(worst.body),
    )
