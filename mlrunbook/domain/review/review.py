"""The post-incident review of Step 6: the runbook's template filled from the record, with blanks where only people can answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from mlrunbook.domain.cause import Cause
from mlrunbook.domain.communication.durations import NOT_MEASURED, in_words, times
from mlrunbook.domain.communication.markdown import md
from mlrunbook.domain.communication.messages import NOT_ESTIMATED, Figures, line, versioned
from mlrunbook.domain.incident import Incident, Severity
from mlrunbook.domain.investigation.causes.definition import CAUSE_OPEN, FollowUp, Prevention
from mlrunbook.domain.investigation.causes.registry import definition_of
from mlrunbook.domain.people import person_of
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.records import IsoTime, Record, Recorded
from mlrunbook.domain.roles import Role

IN_THE_MEETING = "To be answered in the review meeting"
ACTION_ITEMS, APPROVALS = "## Action Items", "## Approvals"
WHYS = 5
UPKEEP = FollowUp("Update the runbook with what this incident taught", Role.ML_TEAM_LEAD, 7)


@dataclass(frozen=True)
class Event:
    """One row of the timeline."""

    at: datetime
    text: str


@dataclass(frozen=True)
class ActionItem:
    """`owner`: a role of the policy, or what the meeting wrote."""

    action: str
    owner: str
    due_on: date
    status: str = "Not Started"


@dataclass(frozen=True)
class Signature:
    """`role`: one of the policy. `person`: the person id behind the token; empty: as the name says."""

    by: str
    role: str
    at: IsoTime
    person: str = ""

    def is_by(self, person: str) -> bool:
        return person in (self.person or person_of(self.by), person_of(self.by))


@dataclass(frozen=True)
class Reviewed(Signature, Recorded, key=Record.REVIEWED):
    """By whoever held the review."""


@dataclass(frozen=True)
class Approved(Signature, Recorded, key=Record.APPROVED):
    """By somebody else."""


@dataclass(frozen=True)
class Drafted(Recorded, key=Record.REVIEW):
    """The text, and what it `told` of containment when it was written: `reviews.current` corrects what no longer holds."""

    markdown: str
    told: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DriftReport(Recorded, key=Record.DRIFT_REPORT):
    """Its name in the evidence. None: it could not be drawn, and `why`."""

    name: str | None
    why: str = ""


@dataclass(frozen=True)
class ReviewFacts:
    """What the record says about one resolved incident.

    `root_cause` is a sentence, `cause` its kind. `chain`: "Why X? Because Y", from the symptom down. `during` and `after`:
    figures before and after the fix. `containment_left`: a sentence about each containment that is in force. `updates_due` counts the
    updates that fell due, `updates_on_time` those sent in time. `deadlines`: what the law asks, and how it stands. `outages`: what
    containment cost in service, with its times.
    """

    incident: Incident
    events: Sequence[Event]
    root_cause: str | None = None
    chain: Sequence[str] = ()
    cause: Cause | None = None
    resolution: Sequence[str] = ()
    during: Figures = field(default_factory=Figures)
    after: Figures = field(default_factory=Figures)
    detected_automatically: bool = True
    paged_at: datetime | None = None
    updates_due: int = 0
    updates_on_time: int = 0
    late_updates: Sequence[str] = ()
    containment_left: Sequence[str] = ()
    business_impact: str | None = None
    deadlines: Sequence[str] = ()
    outages: Sequence[str] = ()


def action_items(cause: Cause | None, severity: Severity, resolved_at: datetime) -> tuple[ActionItem, ...]:
    """What prevents this failure, by its cause (None: not established; of a low incident it need not be), and after a major one, high
    or critical, the runbook's own upkeep ("Update Trigger: After each major incident")."""
    if cause is None and severity is Severity.LOW:
        return ()
    upkeep = (UPKEEP,) if severity.at_least(Severity.HIGH) else ()
    day = resolved_at.astimezone(UTC).date()
    todo = (*_prevention(cause).follow_ups, *upkeep)
    return tuple(ActionItem(one.action, one.owner, day + timedelta(days=one.days)) for one in todo)


def _prevention(cause: Cause | None) -> Prevention:
    return CAUSE_OPEN if cause is None else definition_of(cause).prevention


def assess(facts: ReviewFacts, policy: Policy) -> tuple[list[str], list[str]]:
    """(what went well, what could be improved), each sentence resting on a measured fact."""
    well: list[str] = []
    improve: list[str] = []
    incident, took = facts.incident, times(facts.incident)
    allowed = policy.response_min.of(incident.severity)

    if facts.detected_automatically:
        after = f" {in_words(took.to_detect)} after it began" if took.to_detect is not None else ""
        well.append(f"Automated monitoring detected the failure{after}")
    else:
        improve.append(f"{incident.reported_by} reported the failure before monitoring did")

    if took.to_acknowledge is None:
        improve.append(f"Nobody acknowledged the incident; the response time is {in_words(allowed)}")
    elif took.to_acknowledge <= allowed:
        well.append(f"Acknowledged after {in_words(took.to_acknowledge)}, within the {in_words(allowed)} allowed")
    else:
        improve.append(f"Acknowledged after {in_words(took.to_acknowledge)}, past the {in_words(allowed)} allowed")

    if took.to_contain is not None:
        within = took.to_contain <= allowed
        (well if within else improve).append(
            f"Contained after {in_words(took.to_contain)}" + ("" if within else ", past the response time")
        )
    elif incident.severity.at_least(Severity.HIGH):
        improve.append("No containment is on record")

    if facts.updates_due:
        sent = "; ".join([f"{facts.updates_on_time} of {facts.updates_due} updates went out in time", *facts.late_updates])
        (well if facts.updates_on_time >= facts.updates_due else improve).append(sent)
    f1, baseline = facts.after.f1_now, facts.after.f1_baseline
    if f1 is None:
        improve.append("The F1 score after the fix was not measured")
    elif baseline is not None and f1 >= baseline * (1 - policy.recovery.tolerance):
        well.append(f"Recovery was verified by measurement, F1 score: {facts.after.f1_words}")
    else:
        improve.append(f"Recovery is not shown, F1 score after the fix: {facts.after.f1_words}")
    improve += facts.containment_left
    if len(facts.chain) < WHYS:
        improve.append("The chain of causes is not known to its root")
    return well, improve


def draft(facts: ReviewFacts, items: Sequence[ActionItem], policy: Policy) -> str:
    """The review document in Markdown, every heading of the runbook's template in its order."""
    incident, took = facts.incident, times(facts.incident)
    well, improve = assess(facts, policy)
    lessons = _prevention(facts.cause)
    return "\n".join(
        [
            f"# Post-Incident Review: {md(incident.id)}",
            "",
            "## Incident Summary",
            f"- **Date:** {_day(incident.detected_at)}",
            f"- **Duration:** {in_words(took.to_resolve)}",
            f"- **Severity:** {incident.severity.title()}",
            f"- **Model:** {md(versioned(incident.model, incident.model_version))}",
            "",
            "## Timeline",
            "| Time | Event |",
            "|------|-------|",
            *_timeline(facts.events),
            "",
            "## Root Cause Analysis",
            "",
            "### What Happened?",
            *_what_happened(facts),
            "",
            "### Why Did It Happen?",
            "",
            *_whys(facts.chain),
            "### What Went Well?",
            *_bullets(well),
            "",
            "### What Could Be Improved?",
            *_bullets(improve),
            "",
            ACTION_ITEMS,
            "",
            *_item_table(items),
            "",
            "## Metrics",
            "",
            f"- **Detection Time:** {_noted(took.to_detect, _how_detected(facts))}",
            f"- **Response Time:** {_response(facts, took.to_acknowledge)}",
            f"- **Time to Containment:** {_noted(took.to_contain, 'from detection')}",
            f"- **Total Resolution Time:** {in_words(took.to_resolve)}",
            f"- **Business Impact:** {'; '.join(md(part) for part in (facts.business_impact or NOT_ESTIMATED, *facts.outages))}",
            *(f"- **Regulatory Deadline:** {md(deadline)}" for deadline in facts.deadlines),
            "",
            "## Lessons Learned",
            "",
            f"1. **Technical:** {lessons.technical or IN_THE_MEETING}",
            f"2. **Process:** {lessons.process or IN_THE_MEETING}",
            f"3. **Monitoring:** {lessons.monitoring or IN_THE_MEETING}",
            "",
            APPROVALS,
            "",
            *_approvals(None, None),
            "",
        ]
    )


def standing(markdown: str, items: Sequence[ActionItem], reviewed: Signature | None, approved: Signature | None) -> str:
    """The review with its action items and signatures as they are now; a section that people have taken out comes back at the end."""
    text = _with_section(markdown, ACTION_ITEMS, _item_table(items))
    return _with_section(text, APPROVALS, _approvals(reviewed, approved))


def misplaced(markdown: str, items: Sequence[ActionItem]) -> list[str]:
    """Lines that people wrote into a section that `standing` writes anew, and that would be lost."""
    known = {f"| {md(item.action)} " for item in items}
    lost: list[str] = []
    within = ""
    for row in markdown.splitlines():
        if row.startswith("## "):
            within = row if row in (ACTION_ITEMS, APPROVALS) else ""
        elif within and row.strip() and not row.startswith((*known, *_OURS)):
            lost.append(row.strip())
    return lost


def corrected(markdown: str, retold: Mapping[str, str]) -> str:
    """The text with sentences that no longer hold replaced; what people have put in their place stays."""
    for old, new in retold.items():
        markdown = markdown.replace(md(old), md(new))
    return markdown


_OURS = ("| Action |", "|---", "- **Reviewed By:**", "- **Approved By:**", "- **Date:**")


def _with_section(markdown: str, heading: str, body: Sequence[str]) -> str:
    rows = markdown.splitlines()
    rows += [] if heading in rows or not rows or not rows[-1] else [""]
    start = rows.index(heading) if heading in rows else len(rows)
    end = next((n for n in range(start + 1, len(rows)) if rows[n].startswith("## ")), len(rows))
    return "\n".join([*rows[:start], heading, "", *body, "", *rows[end:]]) + ("" if rows[end:] else "\n")


def _item_table(items: Sequence[ActionItem]) -> list[str]:
    rows = [f"| {md(i.action)} | {md(Role.named(i.owner))} | {i.due_on:%Y-%m-%d} | {md(i.status)} |" for i in items]
    return ["| Action | Owner | Due Date | Status |", "|--------|-------|----------|--------|", *rows]


def _approvals(reviewed: Signature | None, approved: Signature | None) -> list[str]:
    return [
        f"- **Reviewed By:** {_signed(reviewed) or '[ML Team Lead]'}",
        f"- **Approved By:** {_signed(approved) or '[Engineering Manager]'}",
        f"- **Date:** {_day(approved.at) if approved else 'YYYY-MM-DD'}",
    ]


def _signed(signature: Signature | None) -> str:
    return f"{md(signature.by)} ({md(Role.named(signature.role))}), {_day(signature.at)}" if signature else ""


def _timeline(events: Sequence[Event]) -> list[str]:
    """HH:MM UTC; with seconds when two events share a minute, with the date in front when the incident lasted over midnight."""
    ordered = sorted(events, key=lambda event: event.at)
    days, minutes = {_day(event.at) for event in ordered}, {event.at.replace(second=0, microsecond=0) for event in ordered}
    form = ("%Y-%m-%d " if len(days) > 1 else "") + ("%H:%M:%S UTC" if len(minutes) < len(ordered) else "%H:%M UTC")
    return [f"| {event.at.astimezone(UTC).strftime(form)} | {md(event.text)} |" for event in ordered]


def _what_happened(facts: ReviewFacts) -> list[str]:
    incident = facts.incident
    said = [
        f"Reported by {md(incident.reported_by)} at {incident.detected_at.astimezone(UTC):%H:%M} UTC: {md(incident.description)}",
        f"Impact as reported: {md(incident.impact)}" if incident.impact else "",
        f"F1 score during the incident: {facts.during.f1_words}.",
        f"Root cause: {md(facts.root_cause or 'not established yet')}",
        f"Resolution: {md('; '.join(facts.resolution) or 'none on record')}",
    ]
    return ["\n\n".join(sentence for sentence in said if sentence)]


def _whys(chain: Sequence[str]) -> list[str]:
    lines = []
    for n in range(1, WHYS + 1):
        question, answer = _why(chain[n - 1]) if n <= len(chain) else ("Why?", IN_THE_MEETING)
        lines += [f"{n}. {question}", f"   → {answer}", ""]
    return lines


def _why(link: str) -> tuple[str, str]:
    """A link of the chain as (question, answer): "Why X? Because Y", or a bare cause."""
    question, is_pair, answer = line(link).partition("? Because ")
    return (f"{md(question)}?", f"Because {md(answer)}") if is_pair else ("Why?", f"Because {md(link)}")


def _bullets(items: Sequence[str]) -> list[str]:
    return [f"- {md(item)}" for item in items] or [f"- {IN_THE_MEETING}"]


def _how_detected(facts: ReviewFacts) -> str:
    return "automated alert" if facts.detected_automatically else f"reported by {md(facts.incident.reported_by)}"


def _response(facts: ReviewFacts, to_acknowledge: timedelta | None) -> str:
    if to_acknowledge is not None:
        who = f"acknowledged by {md(facts.incident.acknowledged_by)}" if facts.incident.acknowledged_by else "acknowledged"
        return _noted(to_acknowledge, who)
    if facts.paged_at is not None:
        return _noted(facts.paged_at - facts.incident.detected_at, "engineer paged; nobody acknowledged")
    return NOT_MEASURED


def _noted(duration: timedelta | None, note: str) -> str:
    return in_words(duration) + (f" ({note})" if duration is not None else "")


def _day(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d}"


def next_review_reminder(due: datetime, now: datetime, *, before_h: int, overdue_every_h: int) -> datetime:
    """When the review is asked for next: before it is due (runbook, Step 6: "within 48 hours"), when it is, and ever after."""
    first = due - timedelta(hours=before_h)
    if now < first:
        return first
    if now < due:
        return due
    every = timedelta(hours=overdue_every_h)
    return due + ((now - due) // every + 1) * every
