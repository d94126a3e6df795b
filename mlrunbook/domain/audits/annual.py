"""Annually: "Comprehensive risk assessment and compliance review", along the functions of the NIST AI Risk Management Framework 1.0
(NIST AI 100-1, 2023): Govern, Map, Measure, Manage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from statistics import median

from mlrunbook.domain.audits.period import Kind, Period
from mlrunbook.domain.audits.quarterly import (
    AuditSeen,
    ChangeMade,
    DrillSeen,
    ReviewSeen,
    TokenSeen,
    access,
    approvals,
    clocks_section,
    drills,
    model_card,
    performance,
    records_section,
    reviews_section,
    runbook_review,
)
from mlrunbook.domain.audits.records import is_late
from mlrunbook.domain.audits.runbook_page import Upkeep
from mlrunbook.domain.audits.section import Bars, Estimate, Intervals, Lines, Section, Table, Verdict, listed, share
from mlrunbook.domain.communication.durations import Times, in_words, times
from mlrunbook.domain.communication.regulatory import Clock
from mlrunbook.domain.evaluation.history import DayFigures
from mlrunbook.domain.evaluation.performance import percent, wilson, z_value
from mlrunbook.domain.incident import Incident, ItemStatus, Severity, Status
from mlrunbook.domain.observed import Missing
from mlrunbook.domain.people import person_of
from mlrunbook.domain.plural import counted
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.review.action_items import Item
from mlrunbook.domain.roles import Role

GOVERN, MAP, MEASURE, MANAGE = "Govern", "Map", "Measure", "Manage"
UNKNOWN = "not established"
_CONFIDENCE = 0.95  # of every comparison with the year before
_SPANS: Mapping[str, tuple[str, Callable[[Times], timedelta | None]]] = {
    "MTTD": ("to detect", lambda t: t.to_detect),
    "MTTA": ("to answer", lambda t: t.to_acknowledge),
    "MTTC": ("to contain", lambda t: t.to_contain),
    "MTTR": ("to resolve", lambda t: t.to_resolve),
}


@dataclass(frozen=True)
class AnnualFacts:
    """`incidents` of the year and `before` of the one before it, false alarms included; `causes` by incident id, as the diagnosis or people
    named them. `items` also those that are done."""

    now: datetime
    model_card: tuple[str, str | None]
    upkeep: Upkeep | Missing
    incidents: Sequence[Incident] = ()
    before: Sequence[Incident] = ()
    causes: Mapping[str, str] = field(default_factory=dict)
    history: Sequence[DayFigures] | Missing = ()
    changes: Sequence[ChangeMade] = ()
    checked: int = 0
    broken: Mapping[str, str] = field(default_factory=dict)
    clocks: Sequence[tuple[str, Clock]] = ()
    reviews: Sequence[ReviewSeen] = ()
    audits: Sequence[AuditSeen] = ()
    tokens: Sequence[TokenSeen] = ()
    items: Sequence[Item] = ()
    drills: Sequence[DrillSeen] = ()


def annual(facts: AnnualFacts, period: Period, policy: Policy) -> tuple[Section, ...]:
    real = [i for i in facts.incidents if i.status is not Status.FALSE_ALARM]
    earlier = [i for i in facts.before if i.status is not Status.FALSE_ALARM]
    return (
        _roles(facts.tokens, policy),
        access(facts.tokens, facts.now, policy, GOVERN),
        runbook_review(facts.upkeep, facts.now, GOVERN),
        drills(facts.drills, facts.tokens, facts.now, policy, GOVERN),
        model_card(*facts.model_card, policy, MAP),
        _risks(real, facts.causes, policy),
        performance(facts.history, period, policy, MEASURE),
        _fairness(facts.audits),
        _times(real, earlier, period, policy),
        _answered(real, facts.now, policy),
        _incidents(facts.incidents, real, earlier, period, policy),
        _recurrence(real, facts.causes, policy),
        _controls(real, facts.changes, facts.items, facts.now, policy),
        approvals(facts.changes, MANAGE),
        records_section(facts.checked, facts.broken, MANAGE),
        reviews_section(facts.reviews, facts.now, MANAGE),
        clocks_section(facts.clocks, facts.now, MANAGE),
    )


# --- Govern, Map ----------------------------------------------------------------------------------------------------------------


def _roles(tokens: Sequence[TokenSeen], policy: Policy) -> Section:
    """Govern 2.1: roles and responsibilities are clear. Every kind of plan has somebody who may approve it."""
    key, title = "roles", "Somebody can decide"
    kinds = {name: getattr(policy.approvals, name) for name in type(policy.approvals).model_fields}
    able = {role: {t.person or person_of(t.name): t.name for t in tokens if t.role == role and "approve" in t.scopes} for role in Role}
    rows, left = [], []
    for name, rule in kinds.items():
        people = {person: called for role in rule.roles for person, called in able[role].items()}
        needed = rule.count + (1 if rule.excludes_requester else 0)  # one of them may be whoever asked for the plan
        if len(people) < needed:
            left.append(name)
        rows.append((name, ", ".join(role.words for role in rule.roles), str(needed), listed(sorted(people.values())) or "nobody"))
    tables = (Table("Who may approve", ("Kind of plan", "Roles", "Needed", "People with a token"), tuple(rows)),)
    if left:
        return Section(key, title, Verdict.FAIL, f"too few people can approve: {', '.join(left)}", tables=tables, group=GOVERN)
    return Section(key, title, Verdict.PASS, "every kind of plan has enough people who may approve it", tables=tables, group=GOVERN)


def _risks(incidents: Sequence[Incident], causes: Mapping[str, str], policy: Policy) -> Section:
    """Map 5.1: likelihood and magnitude of each impact. A risk's weight is the sum over its incidents: low 1, medium 2, high 4, critical 8.
    Fails when too many incidents have no established cause: a risk nobody understands cannot be managed."""
    key, title = "risks", "Top risks, by cause and severity"
    if not incidents:
        return Section(key, title, Verdict.PASS, "no incident: no risk has come true this year", group=MAP)
    by_cause: dict[str, Counter[Severity]] = {}
    for one in incidents:
        by_cause.setdefault(causes.get(one.id) or UNKNOWN, Counter())[one.severity] += 1
    weight = {cause: sum(n * 2**severity.rank for severity, n in counts.items()) for cause, counts in by_cause.items()}
    ordered = sorted(by_cause, key=lambda cause: (-weight[cause], cause))
    worst_first = list(Severity)[::-1]
    parts = {s.value: tuple(float(by_cause[c][s]) for c in ordered) for s in worst_first}
    charts = (Bars("Incidents by cause and severity", tuple(ordered), parts),)
    rows = tuple((c, str(by_cause[c].total()), *(str(by_cause[c][s]) for s in worst_first), str(weight[c])) for c in ordered)
    tables = (Table("Risk register", ("Cause", "Incidents", *(s.value for s in worst_first), "Weight"), rows),)
    unknown = by_cause.get(UNKNOWN, Counter()).total()
    top = listed([c for c in ordered if c != UNKNOWN], 3)
    said = f"the heaviest: {top}" if top else "no cause is known"
    if unknown / len(incidents) > 1 - policy.audits.in_time:
        sentence = f"{unknown} of {counted(len(incidents), 'incident')} without an established cause; {said}"
        return Section(key, title, Verdict.FAIL, sentence, charts, tables, group=MAP)
    sentence = f"{counted(len(incidents), 'incident')}, causes established; {said}"
    return Section(key, title, Verdict.PASS, sentence, charts, tables, group=MAP)


# --- Measure --------------------------------------------------------------------------------------------------------------------


def _fairness(audits: Sequence[AuditSeen]) -> Section:
    key, title = "fairness", "Fairness over the year"
    monthly = sorted((a for a in audits if a.kind is Kind.MONTHLY), key=lambda a: a.period)
    if not monthly:
        return Section(key, title, Verdict.NOT_ENOUGH_DATA, "no monthly assessment is filed", group=MEASURE)
    rows = tuple((a.period, a.verdict.words) for a in monthly)
    tables = (Table("Monthly assessments", ("Month", "Verdict"), rows),)
    failed = [a.period for a in monthly if a.verdict is Verdict.FAIL]
    last = monthly[-1]
    if last.verdict is Verdict.FAIL:
        sentence = f"the last assessment ({last.period}) failed, and {counted(len(failed), 'assessment')} in all"
        return Section(key, title, Verdict.FAIL, sentence, tables=tables, group=MEASURE)
    words = f"{len(failed)} of {counted(len(monthly), 'monthly assessment')} failed, the last one ({last.period}) did not"
    return Section(key, title, last.verdict, words, tables=tables, group=MEASURE)


def _times(incidents: Sequence[Incident], before: Sequence[Incident], period: Period, policy: Policy) -> Section:
    """Measure 4: did the runbook get faster? Slower counts when chance does not explain it (Mann and Whitney 1947, one-sided, the level
    divided by the four times): such times are skewed, and a mean follows the one that took days."""
    key, title = "times", "Times to detect, answer, contain and resolve"
    least = policy.audits.min_incidents
    rows, slower, judged = [], [], 0
    quarters = sorted({_quarter(i.detected_at) for i in [*before, *incidents]})
    series: dict[str, tuple[float | None, ...]] = {}
    since = period.since.date()
    for name, (words, of) in _SPANS.items():
        now, was = _minutes(incidents, of), _minutes(before, of)
        series[name] = tuple(_median(_minutes([i for i in [*before, *incidents] if _quarter(i.detected_at) == q], of)) for q in quarters)
        verdict = "too few to compare"
        if min(len(now), len(was)) >= least:
            judged += 1
            verdict = "no slower beyond chance"
            if _p_slower(now, was) < (1 - _CONFIDENCE) / len(_SPANS):
                verdict = "slower, beyond chance"
                slower.append(name)
        rows.append((f"{name} ({words})", str(len(now)), _span(_median(now)), _span(max(now, default=None)), _span(_median(was)), verdict))
    columns = ("Time", "Incidents", "Median", "Longest", "Median the year before", "Trend")
    tables = (Table("Times", columns, tuple(rows)),) if incidents else ()
    charts = tuple(
        Lines(f"Median minutes by quarter: {' and '.join(names)}", tuple(quarters), {n: series[n] for n in names}, " min", since=since)
        for names in (("MTTD", "MTTA"), ("MTTC", "MTTR"))
        if quarters
    )
    if slower:
        return Section(key, title, Verdict.FAIL, f"slower than the year before: {', '.join(slower)}", charts, tables, group=MEASURE)
    if not judged:
        sentence = f"a trend needs {least} incidents in this year and in the one before; there are {len(incidents)} and {len(before)}"
        return Section(key, title, Verdict.NOT_ENOUGH_DATA, sentence, charts, tables, group=MEASURE)
    sentence = f"none is slower than the year before, of {judged} that can be compared"
    return Section(key, title, Verdict.PASS, sentence, charts, tables, group=MEASURE)


def _p_slower(now: Sequence[float], was: Sequence[float]) -> float:
    from scipy.stats import mannwhitneyu

    return float(mannwhitneyu(now, was, alternative="greater").pvalue)


def _minutes(incidents: Sequence[Incident], of: Callable[[Times], timedelta | None]) -> list[float]:
    return [span.total_seconds() / 60 for i in incidents if (span := of(times(i))) is not None]


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _span(minutes: float | None) -> str:
    return "-" if minutes is None else in_words(timedelta(minutes=minutes))


def _quarter(at: datetime) -> date:
    at = at.astimezone(UTC)
    return date(at.year, (at.month - 1) // 3 * 3 + 1, 1)


def _answered(incidents: Sequence[Incident], now: datetime, policy: Policy) -> Section:
    key, title = "answered", "Answered within the response time"
    by_severity = {s.value: [not is_late(i, now, policy) for i in incidents if i.severity is s] for s in list(Severity)[::-1]}
    groups = {name: (sum(found), len(found)) for name, found in by_severity.items() if found}
    return _shares(key, title, groups, policy, MEASURE, "incident")


def _shares(key: str, title: str, groups: Mapping[str, tuple[int, int]], policy: Policy, group: str, noun: str) -> Section:
    """Shares of successes against the share that must be reached: failed when even the upper end of the interval is below it."""
    need, least = policy.audits.in_time, policy.audits.min_incidents
    z = z_value(_CONFIDENCE)
    estimates, rows, below, doubt, few = [], [], [], [], []
    for name, (good, n) in groups.items():
        low, high = wilson(good, n, z)
        estimates.append(Estimate(name, good / n if n else None, low, high))
        rows.append((name, f"{good} of {n}", share(good / n) if n else "-", f"{share(low)} to {share(high)}" if n else "-"))
        if n < least:
            few.append(name)
        elif high < need:
            below.append(f"{name} {percent(good / n)}")
        elif good / n < need:
            doubt.append(f"{name} {percent(good / n)}")
    charts = (Intervals(title, tuple(estimates)),) if any(e.value is not None for e in estimates) else ()
    tables = (Table("Shares", ("What", "Of", "Share", "95 % interval"), tuple(rows)),) if rows else ()
    if below:
        return Section(key, title, Verdict.FAIL, f"below {percent(need)}, beyond chance: {', '.join(below)}", charts, tables, group=group)
    if doubt:
        sentence = f"below {percent(need)}, and chance may explain it: {', '.join(doubt)}"
        return Section(key, title, Verdict.NOT_ENOUGH_DATA, sentence, charts, tables, group=group)
    if len(few) == len(groups):
        sentence = f"fewer than {counted(least, noun)} of each kind to judge by" if groups else f"no {noun} to judge by"
        return Section(key, title, Verdict.NOT_ENOUGH_DATA, sentence, charts, tables, group=group)
    left = f"; too few to judge: {listed(few)}" if few else ""
    return Section(key, title, Verdict.PASS, f"at least {percent(need)} of each{left}", charts, tables, group=group)


# --- Manage ---------------------------------------------------------------------------------------------------------------------


def _incidents(
    everything: Sequence[Incident], real: Sequence[Incident], before: Sequence[Incident], period: Period, policy: Policy
) -> Section:
    """More high and critical incidents than the year before, beyond chance: of two equal rates the split is binomial (Przyborowski and
    Wilenski 1940)."""
    key, title = "incidents", "Incidents of the year"
    if not everything:
        return Section(key, title, Verdict.PASS, "no incident this year", group=MANAGE)
    months = _months(period)
    parts = {
        s.value: tuple(float(sum(i.severity is s and f"{i.detected_at:%Y-%m}" == m for i in real)) for m in months)
        for s in list(Severity)[::-1]
    }
    by_type = Counter(i.type.value.replace("_", " ") for i in real)
    rows = tuple((name, str(n)) for name, n in by_type.most_common())
    charts = (Bars("Incidents by month and severity", tuple(months), parts),)
    tables = (Table("By type", ("Type", "Incidents"), rows),)
    grave, were = (sum(i.severity.at_least(Severity.HIGH) for i in of) for of in (real, before))
    false = len(everything) - len(real)
    said = f"{counted(len(real), 'incident')}, {grave} of them high or critical ({were} the year before), {counted(false, 'false alarm')}"
    if not before:
        return Section(key, title, Verdict.NOT_ENOUGH_DATA, f"{said}: no year before to compare with", charts, tables, group=MANAGE)
    if grave > were and _p_more(grave, were) < 1 - _CONFIDENCE:
        return Section(key, title, Verdict.FAIL, f"{said}: more, beyond chance", charts, tables, group=MANAGE)
    return Section(key, title, Verdict.PASS, f"{said}: not more beyond chance", charts, tables, group=MANAGE)


def _p_more(now: int, was: int) -> float:
    from scipy.stats import binom

    return float(binom.sf(now - 1, now + was, 0.5))


def _months(period: Period) -> list[str]:
    found, day = [], period.since
    while day < period.until:
        name = f"{day:%Y-%m}"
        if name not in found:
            found.append(name)
        day += timedelta(days=1)
    return found


def _recurrence(incidents: Sequence[Incident], causes: Mapping[str, str], policy: Policy) -> Section:
    """Manage 4.1: what was mended stays mended."""
    key, title = "recurrence", "Causes that came back"
    within = timedelta(days=policy.audits.recurrence_days)
    last: dict[str, Incident] = {}
    rows = []
    for one in sorted(incidents, key=lambda i: i.detected_at):
        cause = causes.get(one.id)
        if not cause:
            continue
        if cause in last and one.detected_at - last[cause].detected_at <= within:
            rows.append((cause, last[cause].id, one.id, in_words(one.detected_at - last[cause].detected_at)))
        last[cause] = one
    if not last:
        return Section(key, title, Verdict.PASS, "no cause was established, so none came back", group=MANAGE)
    if rows:
        tables = (Table("Came back", ("Cause", "First", "Again", "After"), tuple(rows)),)
        sentence = f"within {policy.audits.recurrence_days} days: {listed(sorted({row[0] for row in rows}))}"
        return Section(key, title, Verdict.FAIL, sentence, tables=tables, group=MANAGE)
    sentence = f"none of {counted(len(last), 'cause')} came back within {policy.audits.recurrence_days} days"
    return Section(key, title, Verdict.PASS, sentence, group=MANAGE)


def _controls(
    incidents: Sequence[Incident], changes: Sequence[ChangeMade], items: Sequence[Item], now: datetime, policy: Policy
) -> Section:
    """Do the controls work? Contained within the response time, prevented as agreed, changed only as approved."""
    grave = [i for i in incidents if i.severity.at_least(Severity.HIGH)]
    contained = [i.contained_at is not None and i.contained_at - i.detected_at <= policy.response_min.of(i.severity) for i in grave]
    due = [i for i in items if i.status is not ItemStatus.DROPPED and (not i.status.is_open or i.due_at < now)]
    done = [not i.status.is_open and i.ended_at is not None and i.ended_at <= i.due_at for i in due]
    sound = [not c.fault for c in changes]
    groups = {
        "contained in time (high, critical)": (sum(contained), len(contained)),
        "action items done in time": (sum(done), len(done)),
        "changes with a sound approval": (sum(sound), len(sound)),
    }
    return _shares("controls", "Controls work", {name: of for name, of in groups.items() if of[1]}, policy, MANAGE, "case")
