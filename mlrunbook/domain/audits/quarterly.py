"""Quarterly: "Full model audit (documentation, compliance, performance)", and what keeps the runbook itself alive."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import takewhile

from mlrunbook.domain.audits.period import Kind, Period, complete
from mlrunbook.domain.audits.records import action_items
from mlrunbook.domain.audits.runbook_page import Upkeep
from mlrunbook.domain.audits.section import Lines, Matrix, Opens, Section, Table, Verdict, figure, listed, missing, share
from mlrunbook.domain.communication.durations import in_words
from mlrunbook.domain.communication.regulatory import Clock
from mlrunbook.domain.evaluation.history import DayFigures, between, total
from mlrunbook.domain.evaluation.performance import Evidence, f1_interval, grade_drop, percent
from mlrunbook.domain.incident import IncidentType, Severity, Subtype
from mlrunbook.domain.observed import Missing
from mlrunbook.domain.plural import counted
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.review.action_items import Item
from mlrunbook.domain.roles import Role

DOCUMENTATION, COMPLIANCE, PERFORMANCE, ACCESS, UPKEEP = "Documentation", "Compliance", "Performance", "Access", "Upkeep"
OUTDATED = Opens(IncidentType.COMPLIANCE, Severity.LOW, Subtype.AUDIT_FAILURE)  # "Low: documentation outdated"
BROKEN_RECORD = Opens(IncidentType.COMPLIANCE, Severity.HIGH, Subtype.AUDIT_FAILURE)
VIOLATION = Opens(IncidentType.COMPLIANCE, Severity.HIGH, Subtype.REGULATORY_VIOLATION)


@dataclass(frozen=True)
class ChangeMade:
    """One change to the world, and the approval it rests on. `fault` says what is wrong with that; empty: nothing."""

    incident_id: str
    at: datetime
    summary: str
    approver: str
    fault: str = ""
    requested_by: str = ""  # empty: the runbook itself
    by_requester: bool = False  # whoever asked for it approved it


@dataclass(frozen=True)
class ReviewSeen:
    """The post-incident review of one incident that is over."""

    incident_id: str
    due_at: datetime
    reviewed_by: str | None
    approved_by: str | None


@dataclass(frozen=True)
class TokenSeen:
    id: str
    name: str
    role: str | None
    scopes: tuple[str, ...]
    created_at: datetime
    last_used_at: datetime | None
    person: str = ""  # empty: as the name says


@dataclass(frozen=True)
class AuditSeen:
    kind: Kind
    period: str
    verdict: Verdict


@dataclass(frozen=True)
class DrillSeen:
    held_at: datetime
    what: str
    result: str


@dataclass(frozen=True)
class QuarterlyFacts:
    """`documents` and `model_card`: text by path, None where there is no such file. `broken` says by incident what of its timeline or
    evidence is not as it was written; `checked` counts the incidents looked at. `history`: two quarters by day."""

    now: datetime
    documents: Mapping[str, str | None]
    model_card: tuple[str, str | None]
    upkeep: Upkeep | Missing
    changes: Sequence[ChangeMade] = ()
    checked: int = 0
    broken: Mapping[str, str] = field(default_factory=dict)
    clocks: Sequence[tuple[str, Clock]] = ()
    reviews: Sequence[ReviewSeen] = ()
    history: Sequence[DayFigures] | Missing = ()
    audits: Sequence[AuditSeen] = ()
    first_audit_at: datetime | None = None
    tokens: Sequence[TokenSeen] = ()
    items: Sequence[Item] = ()
    drills: Sequence[DrillSeen] = ()


def quarterly(facts: QuarterlyFacts, period: Period, policy: Policy) -> tuple[Section, ...]:
    return (
        _documents(facts.documents),
        model_card(*facts.model_card, policy),
        runbook_review(facts.upkeep, facts.now),
        approvals(facts.changes),
        records_section(facts.checked, facts.broken),
        clocks_section(facts.clocks, facts.now),
        reviews_section(facts.reviews, facts.now),
        performance(facts.history, period, policy),
        _audits_held(facts, period),
        access(facts.tokens, facts.now, policy),
        action_items(facts.items, facts.now, UPKEEP),
        drills(facts.drills, facts.tokens, facts.now, policy),
    )


def _documents(documents: Mapping[str, str | None]) -> Section:
    key, title = "documents", "Required documents"
    absent = [path for path, text in documents.items() if text is None]
    empty = [path for path, text in documents.items() if text is not None and not text.strip()]
    rows = tuple((path, "missing" if path in absent else "empty" if path in empty else "there") for path in documents)
    tables = (Table("Documents", ("Path", "State"), rows),)
    if absent or empty:
        sentence = f"missing or empty: {listed([*absent, *empty])}"
        return Section(key, title, Verdict.FAIL, sentence, tables=tables, opens=OUTDATED, group=DOCUMENTATION)
    return Section(key, title, Verdict.PASS, f"all {len(documents)} are there", tables=tables, group=DOCUMENTATION)


def model_card(path: str, text: str | None, policy: Policy, group: str = DOCUMENTATION) -> Section:
    """Every heading of the policy, with something below it."""
    key, title = "model_card", "Model card"
    if text is None:
        sentence = f"{path} does not exist: nobody can read what the model is for, and what not"
        return Section(key, title, Verdict.FAIL, sentence, opens=OUTDATED, group=group)
    bodies = _sections(text)
    state = {h: "missing" if h not in bodies else "there" if bodies[h] else "empty" for h in policy.audits.model_card_headings}
    wrong = [heading for heading, is_ in state.items() if is_ != "there"]
    tables = (Table(path, ("Heading", "State"), tuple(state.items())),)
    if wrong:
        sentence = f"{path} says nothing under: {listed(wrong)}"
        return Section(key, title, Verdict.FAIL, sentence, tables=tables, opens=OUTDATED, group=group)
    return Section(key, title, Verdict.PASS, f"{path} has all {len(state)} sections", tables=tables, group=group)


def _sections(markdown: str) -> dict[str, str]:
    """Text by heading, without numbers in front of it; what stands under its own subheadings counts."""
    parts = re.split(r"^(#{1,6}) +(?:[\d.]+ +)?(.+?) *#*$", markdown, flags=re.MULTILINE)
    found = list(zip(map(len, parts[1::3]), parts[2::3], (body.strip() for body in parts[3::3]), strict=True))
    texts = {}
    for i, (level, name, body) in enumerate(found):
        below = takewhile(lambda other, level=level: other[0] > level, found[i + 1 :])  # type: ignore[misc]
        texts[name] = "".join([body, *(text for _, _, text in below)])
    return texts


def runbook_review(upkeep: Upkeep | Missing, now: datetime, group: str = DOCUMENTATION) -> Section:
    key, title = "runbook_review", "Review of the runbook"
    if isinstance(upkeep, Missing):
        return Section(key, title, Verdict.FAIL, upkeep.reason, opens=OUTDATED, group=group)
    in_time, words = upkeep.verdict(now.date())
    return Section(key, title, Verdict.PASS if in_time else Verdict.FAIL, words, opens=OUTDATED, group=group)


def approvals(changes: Sequence[ChangeMade], group: str = COMPLIANCE) -> Section:
    key, title = "approvals", "Every change was approved"
    if not changes:
        return Section(key, title, Verdict.PASS, "nothing was changed", group=group)
    rows = tuple(
        (c.incident_id, f"{c.at:%Y-%m-%d %H:%M}", c.summary, c.requested_by or "the runbook", c.approver, _state(c)) for c in changes
    )
    tables = (Table("Changes made through the runbook", ("Incident", "At, UTC", "Change", "Asked for by", "Approved by", "State"), rows),)
    if wrong := [c for c in changes if c.fault]:
        sentence = (
            f"{len(wrong)} of {counted(len(changes), 'change')} without a sound approval ({listed(sorted({c.fault for c in wrong}))})"
        )
        return Section(key, title, Verdict.FAIL, sentence, tables=tables, opens=BROKEN_RECORD, group=group)
    sentence = f"{counted(len(changes), 'change')}, each on an approval that stood when it was made"
    return Section(key, title, Verdict.PASS, sentence, tables=tables, group=group)


def _state(change: ChangeMade) -> str:
    return change.fault or ("approved by whoever asked for it" if change.by_requester else "approved")


def records_section(checked: int, broken: Mapping[str, str], group: str = COMPLIANCE) -> Section:
    key, title = "records", "Timelines and evidence are intact"
    if not checked:
        return Section(key, title, Verdict.PASS, "no incident, so no record to check", group=group)
    if broken:
        tables = (Table("Not as it was written", ("Incident", "What"), tuple(broken.items())),)
        sentence = f"of {counted(checked, 'incident')} checked, {len(broken)} not as written: {listed(list(broken))}"
        return Section(key, title, Verdict.FAIL, sentence, tables=tables, opens=BROKEN_RECORD, group=group)
    return Section(key, title, Verdict.PASS, f"{counted(checked, 'incident')} checked: every hash fits", group=group)


def clocks_section(clocks: Sequence[tuple[str, Clock]], now: datetime, group: str = COMPLIANCE) -> Section:
    key, title = "clocks", "Regulatory deadlines"
    if not clocks:
        return Section(key, title, Verdict.PASS, "no regulatory clock was started", group=group)
    late = [(i, c) for i, c in clocks if (c.ended_at or now) > c.deadline and not c.not_required]
    rows = tuple((incident_id, clock.sentence(now)) for incident_id, clock in clocks)
    tables = (Table("Clocks", ("Incident", "State"), rows),)
    if late:
        sentence = f"{len(late)} of {counted(len(clocks), 'clock')} over its deadline: {listed([i for i, _ in late])}"
        return Section(key, title, Verdict.FAIL, sentence, tables=tables, opens=VIOLATION, group=group)
    return Section(key, title, Verdict.PASS, f"{counted(len(clocks), 'clock')}, none over its deadline", tables=tables, group=group)


def reviews_section(reviews: Sequence[ReviewSeen], now: datetime, group: str = COMPLIANCE) -> Section:
    """People are reminded of a review; that it is late needs no incident."""
    key, title = "reviews", "Post-incident reviews"
    if not reviews:
        return Section(key, title, Verdict.PASS, "no incident ended, so no review was due", group=group)
    late = [r.incident_id for r in reviews if not r.approved_by and r.due_at < now]
    rows = tuple((r.incident_id, f"{r.due_at:%Y-%m-%d %H:%M}", r.reviewed_by or "-", r.approved_by or "-") for r in reviews)
    tables = (Table("Reviews", ("Incident", "Due, UTC", "Reviewed by", "Approved by"), rows),)
    if late:
        sentence = f"{len(late)} of {counted(len(reviews), 'review')} overdue for approval: {listed(late)}"
        return Section(key, title, Verdict.FAIL, sentence, tables=tables, group=group)
    return Section(key, title, Verdict.PASS, f"{counted(len(reviews), 'review')}, none overdue", tables=tables, group=group)


def performance(history: Sequence[DayFigures] | Missing, period: Period, policy: Policy, group: str = PERFORMANCE) -> Section:
    """The period against the one before it, of the same length. Each day is one cluster of outcomes."""
    key, unit = "performance", period.kind.unit
    title = f"Performance of the {unit}"
    if isinstance(history, Missing):
        return missing(key, title, history, group)
    since, until = period.since.date(), (period.until - timedelta(microseconds=1)).date() + timedelta(days=1)
    now, before = between(history, since, until), between(history, since - (until - since), since)
    graded = grade_drop(
        total(before),
        total(now),
        policy.severity.drops,
        blocks=[d.confusion for d in now],
        baseline_blocks=[d.confusion for d in before],
    )
    verdict = {Evidence.REAL: Verdict.FAIL, Evidence.FALSE_ALARM: Verdict.PASS}.get(graded.evidence, Verdict.NOT_ENOUGH_DATA)
    opens = Opens(IncidentType.PERFORMANCE_DEGRADATION, graded.severity) if graded.severity else None
    charts = (weekly_lines(history, since), Matrix(f"Predictions against outcomes, this {unit}", total(now))) if now else ()
    sentence = graded.reason.replace("the baseline", f"the {unit} before")
    return Section(key, title, verdict, sentence, charts, (_months(now, policy),) if now else (), opens, group)


def weekly_lines(history: Sequence[DayFigures], since: date) -> Lines:
    """F1, precision and recall by week: a day of a rarely failing fleet says little."""
    weeks: dict[date, list[DayFigures]] = {}
    for day in history:
        weeks.setdefault(day.day - timedelta(days=day.day.weekday()), []).append(day)
    sums = [total(days) for days in weeks.values()]
    series = {
        "F1": tuple(c.f1 for c in sums),
        "precision": tuple(c.precision for c in sums),
        "recall": tuple(c.recall for c in sums),
    }
    return Lines("F1, precision and recall by week", tuple(weeks), series, since=since)


def _months(days: Sequence[DayFigures], policy: Policy) -> Table:
    months: dict[str, list[DayFigures]] = {}
    for day in days:
        months.setdefault(f"{day.day:%Y-%m}", []).append(day)
    rows = []
    for name, of in months.items():
        counts, n = total(of), sum(d.predictions for d in of)
        low, high = f1_interval(counts, policy.severity.drops.confidence)
        f1 = "-" if counts.f1 is None else f"{counts.f1:.2f} ({low:.2f} to {high:.2f})"
        latency = max((d.latency_p95_ms for d in of if d.latency_p95_ms is not None), default=None)
        errors = max((d.error_rate for d in of if d.error_rate is not None), default=None)
        versions = ", ".join(sorted({v for d in of for v in d.versions}))
        row = (name, str(n), f1, figure(counts.precision), figure(counts.recall), figure(latency, "{:.0f} ms"), share(errors), versions)
        rows.append(row)
    interval = f"F1 ({percent(policy.severity.drops.confidence)} interval)"
    columns = ("Month", "Predictions", interval, "Precision", "Recall", "Worst day's p95", "Worst day's errors", "Versions")
    return Table("By month", columns, tuple(rows))


def _audits_held(facts: QuarterlyFacts, period: Period) -> Section:
    """Every week and month that ended in the period has its audit, from the first one on."""
    key, title = "audits", "Weekly and monthly audits were held"
    began = facts.first_audit_at
    if began is None:
        return Section(key, title, Verdict.NOT_ENOUGH_DATA, "no weekly or monthly audit is filed yet", group=PERFORMANCE)
    due = [one for one in due_audits(period) if one.until >= began]
    held = {(a.kind, a.period): a.verdict for a in facts.audits}
    left = [one.name for one in due if (one.kind, one.name) not in held]
    rows = tuple((a.kind.value, a.period, a.verdict.words) for a in sorted(facts.audits, key=lambda a: (a.kind, a.period)))
    tables = (Table("Audits filed", ("Audit", "Period", "Verdict"), rows),) if rows else ()
    if left:
        sentence = f"{len(left)} of {counted(len(due), 'audit')} not held: {listed(left)}"
        return Section(key, title, Verdict.FAIL, sentence, tables=tables, opens=OUTDATED, group=PERFORMANCE)
    if not due:
        return Section(key, title, Verdict.NOT_ENOUGH_DATA, "none was due since the first was held", tables=tables, group=PERFORMANCE)
    failed = sum(v is Verdict.FAIL for v in held.values())
    sentence = f"all {len(due)} were held; {counted(failed, 'audit')} of the {period.kind.unit} found a broken limit"
    return Section(key, title, Verdict.PASS, sentence, tables=tables, group=PERFORMANCE)


def due_audits(period: Period) -> list[Period]:
    """The calendar weeks and months that ended in the period, in time for their audit to have been held in it."""
    found: dict[tuple[Kind, str], Period] = {}
    day = period.since
    while day < period.until:
        for kind in (Kind.WEEKLY, Kind.MONTHLY):
            one = complete(kind, day)
            if one.until > period.since:
                found[kind, one.name] = one
        day += timedelta(days=1)
    return list(found.values())


def access(tokens: Sequence[TokenSeen], now: datetime, policy: Policy, group: str = ACCESS) -> Section:
    """Who may do what, and whether they still need it. A token that may approve or operate has an owner with a role."""
    key, title, limits = "access", "Access and tokens", policy.audits
    if not tokens:
        return Section(key, title, Verdict.PASS, "there is no token", group=group)
    rows, wrong = [], 0
    for one in sorted(tokens, key=lambda t: t.created_at):
        faults = token_faults(one, now, policy)
        wrong += bool(faults)
        used = "never seen" if one.last_used_at is None else f"{one.last_used_at:%Y-%m-%d}"
        age = in_words(now - one.created_at) if now > one.created_at else "new"
        rows.append((one.id, one.name, Role.named(one.role or "-"), ", ".join(one.scopes), age, used, "; ".join(faults) or "in order"))
    tables = (Table("Tokens in force", ("Token", "Name", "Role", "Scopes", "Age", "Last used", "Judgement"), tuple(rows)),)
    sentence = f"{counted(len(tokens), 'token')} in force"
    if wrong:
        words = f"{wrong} too old (over {limits.token_max_age_days} days), unused ({limits.token_unused_days} days) or without an owner"
        return Section(key, title, Verdict.FAIL, f"{sentence}, {words}", tables=tables, opens=OUTDATED, group=group)
    return Section(key, title, Verdict.PASS, f"{sentence}, each with an owner, in use and not too old", tables=tables, group=group)


def token_faults(one: TokenSeen, now: datetime, policy: Policy) -> list[str]:
    limits, faults = policy.audits, []
    if now - one.created_at > timedelta(days=limits.token_max_age_days):
        faults.append("too old: replace it")
    if now - (one.last_used_at or one.created_at) > timedelta(days=limits.token_unused_days):
        faults.append("unused: revoke it")
    if "approve" in one.scopes and not one.role:
        faults.append("may approve, and has no role: nobody owns it")
    return faults


def drills(held: Sequence[DrillSeen], tokens: Sequence[TokenSeen], now: datetime, policy: Policy, group: str = UPKEEP) -> Section:
    """No incident: the next drill is on the calendar. The first is due so long after the oldest token, which came with the installation."""
    key, title = "drills", "Drills"
    every = timedelta(days=policy.audits.drill_every_days)
    rows = tuple((f"{d.held_at:%Y-%m-%d}", d.what, d.result) for d in held)
    tables = (Table("Drills", ("Held", "What", "Result"), rows),) if rows else ()
    last = max((d.held_at for d in held), default=None)
    if last is None:
        began = min((t.created_at for t in tokens), default=now)
        verdict = Verdict.FAIL if now - began > every else Verdict.NOT_ENOUGH_DATA
        sentence = "no drill is recorded yet: hold a game day, then `mlrunbook audit drill`"
        return Section(key, title, verdict, sentence, tables=tables, group=group)
    words = f"the last drill was on {last:%Y-%m-%d}"
    if now - last > every:
        return Section(key, title, Verdict.FAIL, f"{words}, more than {every.days} days ago", tables=tables, group=group)
    return Section(key, title, Verdict.PASS, f"{words}, the next is due by {last + every:%Y-%m-%d}", tables=tables, group=group)
