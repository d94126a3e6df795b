"""Three pasts for the audits: none, one day, and one year with its troubles. Drawn from a fixed seed: always the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np

from mlrunbook.domain.audits.annual import AnnualFacts, annual
from mlrunbook.domain.audits.monthly import MonthlyFacts, monthly
from mlrunbook.domain.audits.period import Kind, Period, complete
from mlrunbook.domain.audits.quarterly import AuditSeen, ChangeMade, DrillSeen, QuarterlyFacts, ReviewSeen, TokenSeen, due_audits, quarterly
from mlrunbook.domain.audits.runbook_page import Upkeep
from mlrunbook.domain.audits.section import Section, Verdict
from mlrunbook.domain.audits.weekly import FiringAlert, WeeklyFacts, weekly
from mlrunbook.domain.communication.regulatory import Clock
from mlrunbook.domain.evaluation.drift import Reference
from mlrunbook.domain.evaluation.history import DayFigures, between, total
from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics, WindowMetrics
from mlrunbook.domain.incident import Case, ClockName, Incident, IncidentType, ItemStatus, Severity, Status
from mlrunbook.domain.observed import Missing
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.review.action_items import Item

MODEL = "predictive_maintenance"
NOW = datetime(2026, 1, 5, 6, 0, tzinfo=UTC)  # a Monday; the year before it is 2025
PERIODS: Mapping[Kind, Period] = {kind: complete(kind, NOW) for kind in Kind}
A_DAY = 4000  # predictions
TYPES = {"L": 0.6, "M": 0.3, "H": 0.1}
BAD = date(2025, 12, 30)  # a bad release served from here on for four days
SLOW = date(2025, 6, 10)


def counts(rng: np.random.Generator, n: int, recall: float = 0.78, precision: float = 0.82, failing: float = 0.033) -> Confusion:
    positives = int(rng.binomial(n, failing))
    tp = int(rng.binomial(positives, recall))
    fp = int(rng.binomial(n - positives, failing * recall * (1 - precision) / precision / (1 - failing)))
    return Confusion(tp, fp, positives - tp, n - positives - fp)


def history(days: int, *, last: date = date(2026, 1, 4), seed: int = 1) -> list[DayFigures]:
    rng = np.random.default_rng(seed)
    made = []
    for i in range(days):
        day = last - timedelta(days=days - 1 - i)
        recall = 0.4 if BAD <= day <= date(2026, 1, 2) else 0.78
        seen = counts(rng, A_DAY, recall)
        latency = 1900.0 if day == SLOW else float(rng.lognormal(np.log(35), 0.15))
        rates = {"error_rate": float(rng.beta(1, 900)), "null_rate": float(rng.beta(2, 400))}
        flagged = (seen.tp + seen.fp) / seen.n
        made.append(DayFigures(day, A_DAY, seen, flagged, latency, versions=("v1.5.0",), **rates))
    return made


def window(
    days: list[DayFigures], since: datetime, until: datetime, *, seed: int = 2, lower: Mapping[str, float] | None = None
) -> WindowMetrics:
    """The days of [since, until) as one window. `lower`: by how much recall of an asset type is lower."""
    inside = between(days, since.date(), until.date())
    whole, n = total(inside), sum(d.predictions for d in inside)
    rng = np.random.default_rng(seed)
    types = {name: counts(rng, int(n * part), 0.78 - (lower or {}).get(name, 0.0)) for name, part in TYPES.items()} if n else {}
    levels = {"high": Confusion(tp=whole.tp, fp=whole.fp), "low": Confusion(fn=whole.fn, tn=whole.tn)} if n else {}
    return WindowMetrics(
        since,
        until,
        n,
        whole.n,
        whole,
        flagged_share=(whole.tp + whole.fp) / n if n else None,
        latency_p95_ms=max(d.latency_p95_ms or 0 for d in inside) if inside else None,
        error_rate=0.002 if n else None,
        null_rate=0.006 if n else None,
        versions=("v1.5.0",) if n else (),
        by_risk_level=levels,
        by_asset_type=types,
        errors={"scoring": int(n * 0.002)} if n else {},
        label_delay_s=30.0 if n else None,
        outcomes_due=n,
        outcomes_missing=0,
        blocks=tuple(part for d in inside for part in parts_of(d.confusion)),
    )


def parts_of(day: Confusion) -> tuple[Confusion, ...]:
    """A day in slices of three hours, as the platform in the box counts a window in many."""
    rng = np.random.default_rng(day.n)
    cells = (rng.multinomial(cell, [1 / 8] * 8) for cell in (day.tp, day.fp, day.fn, day.tn))
    return tuple(Confusion(*map(int, part)) for part in zip(*cells, strict=True))


def metrics(days: list[DayFigures], period: Period, **of_now: Mapping[str, float]) -> ModelMetrics:
    """The period against the seven days before it."""
    before = window(days, period.since - timedelta(days=7), period.since, seed=3)
    return ModelMetrics(MODEL, window(days, period.since, period.until, **of_now), before)


def incident(number: int, at: datetime, **changes: object) -> Incident:
    one = Incident(
        id=f"incident_{number}",
        model=MODEL,
        type=IncidentType.PERFORMANCE_DEGRADATION,
        family="performance",
        severity=Severity.HIGH,
        status=Status.CLOSED,
        description="F1 fell 31 %",
        impact="",
        reported_by="alertmanager",
        detected_at=at,
        started_at=at - timedelta(minutes=7),
        acknowledged_at=at + timedelta(minutes=11),
        acknowledged_by="the lead",
        contained_at=at + timedelta(minutes=25),
        resolved_at=at + timedelta(hours=2),
        closed_at=at + timedelta(hours=2),
    )
    return replace(one, **changes)  # type: ignore[arg-type]


def item(number: int, due: datetime, **changes: object) -> Item:
    one = Item(number, f"incident_{number}", "Alert on the age of the online rows", "oncall_ml_engineer", due)
    return replace(one, **changes)  # type: ignore[arg-type]


def drift(moved: bool) -> object:
    rng = np.random.default_rng(4)
    old = {
        name: rng.normal(m, s, 2000)
        for name, (m, s) in {"torque_nm": (40, 10), "air_temperature_k": (300, 2), "tool_wear_min": (108, 63)}.items()
    }
    new = {name: rng.normal(v.mean() + (0.8 * v.std() if moved and name == "torque_nm" else 0), v.std(), 2000) for name, v in old.items()}
    return Reference.of(old).compare(new, Policy().drift)


def weekly_facts(past: str) -> WeeklyFacts:
    """`past`: nothing, day, year."""
    period = PERIODS[Kind.WEEKLY]
    if past == "nothing":
        return WeeklyFacts(NOW, metrics([], period), [], Missing("no prediction is logged in the period"), [])
    if past == "day":
        days = history(1)
        return WeeklyFacts(NOW, metrics(days, period), days, Missing("too few rows in the baseline"), [])
    days = history(28)
    monday = datetime(2025, 12, 29, 9, 12, tzinfo=UTC)
    happened = [
        incident(41, monday + timedelta(days=1)),
        incident(
            42,
            monday + timedelta(days=3),
            severity=Severity.MEDIUM,
            contained_at=None,
            acknowledged_at=monday + timedelta(days=3, hours=9),
            resolved_at=monday + timedelta(days=3, hours=11),
            closed_at=monday + timedelta(days=3, hours=11),
        ),
        incident(43, monday + timedelta(days=4), status=Status.FALSE_ALARM, acknowledged_at=None, contained_at=None, resolved_at=None),
    ]
    return WeeklyFacts(
        NOW,
        metrics(days, period, lower={"M": 0.3}),
        days,
        drift(True),  # type: ignore[arg-type]
        [FiringAlert("FeatureDrift", "warning", NOW - timedelta(hours=40), "torque_nm moved")],
        happened,
        [item(41, NOW - timedelta(days=2)), item(42, NOW + timedelta(days=9)), item(43, NOW, status=ItemStatus.DONE, ended_at=NOW)],
        {"incident_41": "the release v2.0.0", "incident_42": "stale features"},
    )


def monthly_facts(past: str) -> MonthlyFacts:
    if past == "nothing":
        return MonthlyFacts({}, {}, None, "")
    if past == "day":
        rng = np.random.default_rng(7)
        return MonthlyFacts({name: counts(rng, int(A_DAY * part)) for name, part in TYPES.items()}, {}, ("L", "M", "H"), "v1.5.0")
    rng = np.random.default_rng(6)
    usual = {name: counts(rng, int(31 * A_DAY * part)) for name, part in TYPES.items()}
    now = {name: counts(rng, int(31 * A_DAY * part), 0.5 if name == "M" else 0.78) for name, part in TYPES.items()}
    return MonthlyFacts(now | {"X": counts(rng, 700)}, usual, ("L", "M", "H"), "v2.0.0")


CARD = "docs/models/predictive_maintenance.md"
WHOLE_CARD = "".join(f"## {heading}\n\nSaid.\n\n" for heading in Policy().audits.model_card_headings)
CAUSES = ("bad deployment", "stale features", "data drift", "threshold change", "feature store outage", "new segment")


def year_of_incidents(year: int, n: int, *, slower: float = 1.0) -> tuple[list[Incident], dict[str, str]]:
    """`n` incidents over a year, and their causes. `slower` stretches the times of all."""
    rng = np.random.default_rng(year)
    made, causes = [], {}
    for i in range(n):
        at = datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=float(rng.uniform(0, 364)))
        severity = [Severity.LOW, Severity.MEDIUM, Severity.HIGH, Severity.CRITICAL][int(rng.choice(4, p=[0.2, 0.4, 0.3, 0.1]))]
        took = [timedelta(minutes=float(rng.lognormal(np.log(m), 0.6)) * slower) for m in (6, 9, 20, 140)]
        one = incident(
            100 * (year - 2000) + i,
            at,
            severity=severity,
            started_at=at - took[0],
            acknowledged_at=at + took[1],
            contained_at=at + took[2] if severity.at_least(Severity.HIGH) else None,
            resolved_at=at + took[3],
            closed_at=at + took[3],
            status=Status.FALSE_ALARM if i % 9 == 8 else Status.CLOSED,
            type=list(IncidentType)[int(rng.choice(6, p=[0.15, 0.4, 0.1, 0.05, 0.05, 0.25]))],
        )
        made.append(one)
        causes[one.id] = CAUSES[int(rng.choice(6, p=[0.3, 0.25, 0.15, 0.1, 0.1, 0.1]))]
    return sorted(made, key=lambda i: i.detected_at), causes


def tokens_of_a_team() -> list[TokenSeen]:
    old, new = NOW - timedelta(days=500), NOW - timedelta(days=100)
    return [
        TokenSeen("a1b2c3d4", "the lead", "ml_team_lead", ("approve", "operate", "read"), new, NOW - timedelta(days=1)),
        TokenSeen("b1b2c3d4", "on call", "oncall_ml_engineer", ("approve", "operate", "read"), new, NOW - timedelta(days=3)),
        TokenSeen("c1b2c3d4", "the manager", "engineering_manager", ("approve", "read"), old, NOW - timedelta(days=2)),
        TokenSeen("d1b2c3d4", "alertmanager", None, ("intake",), new, NOW),
        TokenSeen("e1b2c3d4", "a script", None, ("approve",), new, None),
    ]


def changes_of(incidents: list[Incident]) -> list[ChangeMade]:
    grave = [i for i in incidents if i.severity.at_least(Severity.HIGH) and i.status is not Status.FALSE_ALARM]
    return [ChangeMade(i.id, i.detected_at + timedelta(minutes=30), "roll back to v1.5.0", "the lead") for i in grave]


def clock_of(one: Incident) -> Clock:
    aware = one.detected_at
    notified = {"ended_at": aware + timedelta(hours=30), "ended_by": "Dora Example", "reference": "2025/118"}
    return Clock(ClockName.GDPR, Case.PERSONAL_DATA, aware, aware + timedelta(hours=72), "personal data may have leaked", **notified)  # type: ignore[arg-type]


def quarterly_facts(past: str) -> QuarterlyFacts:
    there: dict[str, str | None] = dict.fromkeys(Policy().audits.documents, "text")
    upkeep = Upkeep("ML Team Lead", "Quarterly", date(2025, 11, 23))
    if past == "nothing":
        return QuarterlyFacts(NOW, there, (CARD, WHOLE_CARD), upkeep, tokens=tokens_of_a_team()[:1])
    if past == "day":
        return QuarterlyFacts(NOW, there, (CARD, WHOLE_CARD), upkeep, history=history(1), tokens=tokens_of_a_team()[:4])
    period = PERIODS[Kind.QUARTERLY]
    incidents = [i for i in year_of_incidents(2025, 40)[0] if i.detected_at >= period.since]
    ended = [i for i in incidents if i.status is Status.CLOSED]
    changes = changes_of(incidents)
    return QuarterlyFacts(
        now=NOW,
        documents=there | {"docs/runbooks/coverage.md": None},
        model_card=(CARD, WHOLE_CARD.replace("## Factors\n\nSaid.", "## Factors\n")),
        upkeep=Upkeep("ML Team Lead", "Quarterly", date(2025, 8, 23)),
        changes=[*changes, replace(changes[0], fault="the approval had expired")],
        checked=len(incidents),
        clocks=[(ended[0].id, clock_of(ended[0]))],
        reviews=[ReviewSeen(i.id, i.closed_at + timedelta(hours=48), "on call", "the lead") for i in ended if i.closed_at],
        history=history(184, last=date(2025, 12, 31)),
        audits=[AuditSeen(p.kind, p.name, Verdict.PASS) for p in due_audits(period)][:-1],
        first_audit_at=period.since + timedelta(days=10),
        tokens=tokens_of_a_team(),
        items=[item(41, NOW - timedelta(days=2)), item(42, NOW + timedelta(days=9))],
        drills=[DrillSeen(datetime(2025, 11, 4, tzinfo=UTC), "game day", "45 runs: right path 98 %, harmful actions 0")],
    )


def annual_facts(past: str) -> AnnualFacts:
    upkeep = Upkeep("ML Team Lead", "Quarterly", date(2025, 11, 23))
    if past == "nothing":
        return AnnualFacts(NOW, (CARD, WHOLE_CARD), upkeep, tokens=tokens_of_a_team()[:1])
    if past == "day":
        one = incident(1, NOW - timedelta(days=5))
        causes = {one.id: "bad deployment"}
        return AnnualFacts(NOW, (CARD, WHOLE_CARD), upkeep, [one], causes=causes, history=history(1), changes=changes_of([one]), checked=1)
    now, causes = year_of_incidents(2025, 40, slower=1.8)
    ended = [i for i in now if i.status is Status.CLOSED]
    items = [item(n, i.detected_at + timedelta(days=14)) for n, i in enumerate(ended)]
    return AnnualFacts(
        now=NOW,
        model_card=(CARD, WHOLE_CARD),
        upkeep=upkeep,
        incidents=now,
        before=year_of_incidents(2024, 31)[0],
        causes=causes,
        history=history(731, last=date(2025, 12, 31)),
        changes=changes_of(now),
        checked=len(now),
        clocks=[(ended[0].id, clock_of(ended[0]))],
        reviews=[ReviewSeen(i.id, i.closed_at + timedelta(hours=48), "on call", "the lead") for i in ended if i.closed_at],
        audits=[AuditSeen(Kind.MONTHLY, f"2025-{m:02d}", Verdict.FAIL if m in (4, 5) else Verdict.PASS) for m in range(1, 13)],
        tokens=tokens_of_a_team(),
        items=[replace(i, status=ItemStatus.DONE, ended_at=i.due_at - timedelta(days=1)) if i.id % 4 else i for i in items],
        drills=[DrillSeen(datetime(2025, 11, 4, tzinfo=UTC), "game day", "45 runs: right path 98 %, harmful actions 0")],
    )


def sections(kind: Kind, past: str) -> tuple[Section, ...]:
    match Kind(kind):
        case Kind.WEEKLY:
            return weekly(weekly_facts(past), Policy())
        case Kind.MONTHLY:
            return monthly(monthly_facts(past), Policy())
        case Kind.QUARTERLY:
            return quarterly(quarterly_facts(past), PERIODS[Kind.QUARTERLY], Policy())
        case Kind.ANNUAL:
            return annual(annual_facts(past), PERIODS[Kind.ANNUAL], Policy())
    raise AssertionError(kind)
