"""What people are told, in the words of the runbook's Step 5, from measured numbers only.

A number that is missing is said to be missing. Alert text is hostile: it goes through `line`, so it can neither forge a label on
a line of its own, nor hide behind control characters, nor become a second mail header.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from mlrunbook.domain.communication.durations import NOT_MEASURED, in_words
from mlrunbook.domain.communication.regulatory import Clock
from mlrunbook.domain.evaluation.outcomes import lag_words
from mlrunbook.domain.incident import Incident, Severity, Status
from mlrunbook.domain.plural import counted
from mlrunbook.domain.policy.policy import CostAssumptions
from mlrunbook.domain.roles import Role

NOT_ESTIMATED = "not estimated"
LINE_LIMIT = 500


@dataclass(frozen=True)
class Rendered:
    """A message ready to send; `text` is how the runbook's templates show it. `console`: the console's path for it, where that is not the
    incident's page."""

    subject: str
    body: str
    console: str | None = None

    @property
    def text(self) -> str:
        return f"Subject: {self.subject}\n\n{self.body}"


@dataclass(frozen=True)
class Figures:
    """Measured numbers. None: not measured, and said so.

    `unnecessary_share` is the share of flagged assets that did not fail (1 - precision), 0..1; `cost_per_day` is in `currency`.
    `predictions`, `labelled` and `label_delay_s` are those of the window behind `f1_now`.
    """

    f1_baseline: float | None = None
    f1_now: float | None = None
    unnecessary_share: float | None = None
    cost_per_day: float | None = None
    currency: str = "USD"
    predictions: int | None = None
    labelled: int | None = None
    label_delay_s: float | None = None

    @property
    def f1_words(self) -> str:
        lag = lag_words(self.predictions, self.labelled, self.label_delay_s)
        known = f" ({lag})" if lag else ""
        if self.f1_now is None:
            return NOT_MEASURED + known
        baseline = f"{self.f1_baseline:.2f} at baseline" if self.f1_baseline is not None else f"a baseline that is {NOT_MEASURED}"
        return f"{self.f1_now:.2f}, against {baseline}{known}"

    @property
    def unnecessary_words(self) -> str:
        if self.unnecessary_share is None:
            return f"Share of maintenance work orders that may be unnecessary: {NOT_MEASURED}"
        return f"~{100 * self.unnecessary_share:.0f} % of maintenance work orders may be unnecessary"

    @property
    def false_alarm_words(self) -> str:
        """The same of a model whose predictions become no work orders."""
        if self.unnecessary_share is None:
            return f"Share of what it flags that may be false alarms: {NOT_MEASURED}"
        return f"~{100 * self.unnecessary_share:.0f} % of what it flags may be false alarms"

    @property
    def cost_words(self) -> str:
        if self.cost_per_day is None:
            return NOT_ESTIMATED
        return f"{self.cost_per_day:,.0f} {line(self.currency)}/day in wasted maintenance resources"


@dataclass(frozen=True)
class IncidentSnapshot:
    """An open incident as people are told about it. `impact` and `actions_taken` are one sentence an item."""

    incident_id: str
    model: str
    model_version: str | None
    severity: Severity
    status: Status
    summary: str
    figures: Figures = field(default_factory=Figures)
    impact: Sequence[str] = ()
    actions_taken: Sequence[str] = ()
    next_steps: Sequence[str] = ()
    expected_resolution: str | None = None
    since_detection: timedelta | None = None
    update_every_min: int = 30
    respond_by: datetime | None = None
    deadlines: Sequence[str] = ()  # what the law asks, and the time left
    duties: Sequence[str] = ()  # who leads and who approves
    holders: Mapping[str, str] = field(default_factory=dict)  # role -> who has taken it over
    reported: Sequence[str] = ()  # what people have reported, in their own words: they lead

    @property
    def title(self) -> str:
        return model_name(self.model)

    @property
    def versioned_model(self) -> str:
        return versioned(self.model, self.model_version)

    @property
    def summary_lines(self) -> list[str]:
        """The reporters' own words first; an incident that nothing has looked at yet has no others."""
        told = [line(words) for words in self.reported]
        return told if any(words.endswith(line(self.summary)) for words in told) else [*told, line(self.summary)]

    @property
    def respond_by_words(self) -> str:
        return f"{self.respond_by.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if self.respond_by else NOT_ESTIMATED

    has_work_orders: bool = True  # the platform keeps work orders that came of its predictions

    @property
    def waste_words(self) -> str:
        return self.figures.unnecessary_words if self.has_work_orders else self.figures.false_alarm_words


@dataclass(frozen=True)
class ResolutionFacts:
    """What the resolution notice says. `figures` are those of the recovery check."""

    incident_id: str
    model: str
    severity: Severity
    resolution_time: timedelta | None
    root_cause: str | None
    resolution: Sequence[str]
    preventive_measures: Sequence[str] = ()
    figures: Figures = field(default_factory=Figures)
    deadlines: Sequence[str] = ()
    impact: Sequence[str] = ()  # what containment cost in service


@dataclass(frozen=True)
class PendingWorkOrder:
    id: int
    asset_id: str
    created_at: datetime


def cost_per_day(unnecessary_per_day: float | None, costs: CostAssumptions) -> float | None:
    """Unnecessary work orders a day times what the policy says one costs; None when either is unknown."""
    if unnecessary_per_day is None or costs.per_unnecessary_work_order is None:
        return None
    return unnecessary_per_day * costs.per_unnecessary_work_order


def initial_notification(s: IncidentSnapshot) -> Rendered:
    """Step 5, "Initial Notification (within 1 hour)"."""
    return Rendered(
        f"[INCIDENT] {s.title} - {s.severity.title()}",
        _text(
            _head(s),
            _paragraph("Summary:", *s.summary_lines, f"F1 score: {s.figures.f1_words}."),
            _paragraph("Impact:", *_bullets([*s.impact, s.waste_words, f"Estimated cost: {s.figures.cost_words}"])),
            _paragraph("Actions Taken:", *_bullets(s.actions_taken, "None yet")),
            *_deadlines(s.deadlines),
            *_duties(s),
            f"Expected Resolution: {line(s.expected_resolution or NOT_ESTIMATED)}",
            f"Updates will be provided every {s.update_every_min} minutes.",
        ),
    )


def update_notification(s: IncidentSnapshot) -> Rendered:
    """The periodic update that the initial notification promises, in its style."""
    return Rendered(
        f"[UPDATE] {s.title} - {s.severity.title()}",
        _text(
            _paragraph(_head(s), f"Time Since Detection: {in_words(s.since_detection)}"),
            _paragraph("Summary:", *s.summary_lines, f"F1 score: {s.figures.f1_words}."),
            _paragraph("Actions Taken:", *_bullets(s.actions_taken, "None yet")),
            _paragraph("Next Steps:", *_bullets(s.next_steps, "To be decided")),
            *_deadlines(s.deadlines),
            *_duties(s),
            f"Expected Resolution: {line(s.expected_resolution or NOT_ESTIMATED)}",
            f"The next update follows in {s.update_every_min} minutes.",
        ),
    )


def resolution_notification(r: ResolutionFacts) -> Rendered:
    """Step 5, "Resolution Notification". Sending it closes the incident."""
    measured = f"Recovery check, F1 score: {r.figures.f1_words}"
    return Rendered(
        f"[RESOLVED] {model_name(r.model)} - {r.severity.title()}",
        _text(
            _paragraph(f"Incident ID: {line(r.incident_id)}", f"Resolution Time: {in_words(r.resolution_time)}"),
            *([_paragraph("Impact:", *_bullets(r.impact))] if r.impact else []),
            _paragraph("Root Cause:", line(r.root_cause or "Not established yet; the post-incident review will look for it.")),
            _paragraph("Resolution:", *_bullets([*r.resolution, measured])),
            _paragraph("Preventive Measures:", *_bullets(r.preventive_measures, "To be agreed in the post-incident review")),
            *_deadlines(r.deadlines),
            "Incident closed.",
        ),
    )


def page(s: IncidentSnapshot, role: Role, reason: str, *, next_step: str | None = None) -> Rendered:
    """A short text for a phone: what the reporter says, who is asked, why, and the one thing to do now."""
    todo = next_step or f"Acknowledge: mlrunbook incidents ack {line(s.incident_id)}"
    return Rendered(
        f"[{s.severity.upper()}] {s.title}: {line(s.summary_lines[0], 120)}",
        _paragraph(
            f"{role.words}{f' ({line(holder)})' if (holder := s.holders.get(role)) else ''}: {line(reason)}",
            *(s.summary_lines if s.reported else ()),
            f"Incident {line(s.incident_id)}, {s.versioned_model}, {_status(s.status).lower()}.",
            *([f"Respond by {s.respond_by_words}."] if s.status.is_open else []),
            line(todo),
        ),
    )


def bare_page(incident: Incident, to: str, reason: str) -> Rendered:
    """What is left to say where the incident's records cannot be read."""
    said = f"{line(to)}: {line(reason)}"
    return Rendered(
        f"[{incident.severity.upper()}] {model_name(incident.model)}: {line(reason, 120)}",
        _paragraph(said, f"Incident {line(incident.id)}; its records cannot be read: look at the gateway's log."),
    )


def ticket(s: IncidentSnapshot) -> Rendered:
    """A low incident: work for the queue, no page."""
    return Rendered(
        f"[TICKET] {s.title} - {s.severity.title()}",
        _text(
            _head(s),
            _paragraph("Summary:", *s.summary_lines),
            _paragraph("Impact:", *_bullets(s.impact, NOT_MEASURED)),
            f"Respond by: {s.respond_by_words}",
        ),
    )


def supervisors_notice(s: IncidentSnapshot, pending: Sequence[PendingWorkOrder] | None) -> Rendered:
    """Step 2, safety risk: supervisors review all pending predictive work orders. Lists every one. None: they cannot be read."""
    listed = [f"WO {o.id}: asset {o.asset_id}, created {o.created_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC" for o in pending or ()]
    if pending is None:
        listed = ["The list cannot be read: look at every predictive work order in the maintenance system"]
    kind = "pending predictive work order"
    return Rendered(
        f"[SAFETY] {s.title} - review {f'all {kind}s' if pending is None else counted(len(pending), kind)}",
        _text(
            _head(s),
            _paragraph("Reason:", *s.summary_lines),
            "Automatic work-order creation is halted. Review each pending predictive work order before it is carried out.",
            _paragraph("Pending Predictive Work Orders:", *_bullets(listed, "None pending")),
        ),
    )


def emergency_alert(s: IncidentSnapshot) -> Rendered:
    """Step 2, safety risk: to the maintenance team, at once."""
    return Rendered(
        f"[EMERGENCY] {s.title} - do not rely on its predictions",
        _text(
            _head(s),
            _paragraph("Reason:", *s.summary_lines),
            _paragraph("Actions Taken:", *_bullets(s.actions_taken, "None yet")),
            "Do not act, and do not hold back maintenance, on this model's predictions until the resolution notice arrives.",
        ),
    )


def breach_notice(s: IncidentSnapshot, what: str, reported: str) -> Rendered:
    """Step 2, "If data breach suspected": to the security team and the compliance officer, immediately."""
    return Rendered(
        f"[{what.upper()}] {s.title} - {s.severity.title()}",
        _text(
            _head(s),
            _paragraph("Reported:", line(reported)),
            _paragraph(
                "Runbook, Data Breach Suspected:",
                "- Preserve logs: done by itself before anything is altered",
                "- Isolate affected systems: done by itself or proposed to a person, see the incident",
                "- Notify security team and compliance officer immediately: this message",
            ),
            *_deadlines(s.deadlines),
            _paragraph(
                f"See how it stands: mlrunbook incidents show {line(s.incident_id)}",
                f"Take the evidence: mlrunbook incidents evidence {line(s.incident_id)} --out bundle",
                f"Record a notification: mlrunbook incidents notified {line(s.incident_id)} --clock gdpr --reference ...",
            ),
            "Do not restart the model server: its memory is evidence. A named person decides when the isolation ends.",
        ),
    )


def regulatory_reminder(incident: Incident, clock: Clock, now: datetime) -> Rendered:
    """To the compliance officer, until the notification is recorded."""
    left = "OVERDUE" if clock.left(now) < timedelta(0) else "DEADLINE"
    return Rendered(
        f"[{left}] {clock.law}: {model_name(incident.model)}, {line(incident.id)}",
        _text(
            line(clock.sentence(now)),
            _paragraph("Why it runs:", line(clock.why), f"Aware since {clock.aware_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC."),
            _paragraph(
                f"Notified: mlrunbook incidents notified {line(incident.id)} --clock {clock.name} --reference ...",
                f"Not required: mlrunbook incidents notified {line(incident.id)} --clock {clock.name} --not-required 'why'",
            ),
        ),
    )


def _duties(s: IncidentSnapshot) -> list[str]:
    return [_paragraph(*(line(duty) for duty in s.duties))] if s.duties else []


def _deadlines(sentences: Sequence[str]) -> list[str]:
    return [_paragraph("Regulatory Deadlines:", *_bullets(sentences))] if sentences else []


def model_name(model: str) -> str:
    """`predictive_maintenance` -> "Predictive Maintenance Model"."""
    words = [w.capitalize() for w in line(model, 80).replace("_", " ").replace("-", " ").split()]
    return " ".join(words if words[-1:] == ["Model"] else [*words, "Model"])


def versioned(model: str, version: str | None) -> str:
    return f"{line(model, 80)} {line(version, 80) if version else '(version unknown)'}"


def line(text: str, limit: int = LINE_LIMIT) -> str:
    """One printable line: control, format and surrogate characters gone, any white space one space, cut at `limit` characters."""
    printable = "".join(c if unicodedata.category(c) not in ("Cc", "Cf", "Cs") else " " if c.isspace() else "" for c in text)
    single = " ".join(printable.split())
    return single if len(single) <= limit else single[: limit - 1].rstrip() + "…"


def led_by(reported: Sequence[str], body: str) -> str:
    """The body with the reporters' own words before it, unless it has them."""
    missing = [words for words in map(line, reported) if words not in body]
    return _text(_paragraph(*missing), body) if missing else body


def _head(s: IncidentSnapshot) -> str:
    return _paragraph(
        f"Incident ID: {line(s.incident_id)}",
        f"Model: {s.versioned_model}",
        f"Severity: {s.severity.upper()}",
        f"Status: {_status(s.status)}",
    )


def _status(status: Status) -> str:
    return status.value.replace("_", " ").capitalize()


def _bullets(items: Iterable[str], otherwise: str | None = None) -> list[str]:
    """One "- " line an item; `otherwise` when there is none."""
    lines = [f"- {line(item)}" for item in items if line(item)]
    return lines if lines or otherwise is None else [f"- {otherwise}"]


def _paragraph(*lines: str) -> str:
    return "\n".join(lines)


def _text(*paragraphs: str) -> str:
    return "\n\n".join(paragraphs)
