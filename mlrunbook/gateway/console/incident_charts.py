"""The charts of one incident: what the store knows, as pictures and as tables. What cannot be drawn is left out, and nothing here fails."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from markupsafe import Markup
from sqlalchemy import Connection

from mlrunbook.adapters.reports import charts, metric_chart
from mlrunbook.adapters.reports.metric_chart import Mark, Reading
from mlrunbook.domain.audits.section import Bars, Estimate, Intervals, Matrix
from mlrunbook.domain.detection.triage import Triage
from mlrunbook.domain.evaluation.moves import f1_interval
from mlrunbook.domain.evaluation.outcome_blocks import OutcomeBlocks
from mlrunbook.domain.incident import Incident
from mlrunbook.domain.resolution.recovery import Recovery
from mlrunbook.domain.tally import Confusion
from mlrunbook.store import evidence, journal, records

METRICS = "metrics.json"  # of the evidence: the two windows as triage read them
DRIFT = "data_quality.feature_distributions"
MOST = 12  # bars, segments and marks of one chart
NARROW = 440  # of a matrix: all that it needs
SLICES = 48  # of the platform's time


@dataclass(frozen=True)
class ChartView:
    """A picture, and its values as a table for whoever cannot see it."""

    title: str
    svg: Markup
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Window:
    """One of the two windows that triage compared. `blocks`: the tallies of equal slices of its time, oldest first."""

    since: datetime
    until: datetime
    counts: Confusion
    blocks: tuple[Confusion, ...] = ()
    by_type: Mapping[str, Confusion] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """What there is to draw."""

    now: Window | None = None
    baseline: Window | None = None
    looks: tuple[Reading, ...] = ()  # later ones
    marks: tuple[Mark, ...] = ()
    drift: Mapping[str, float] = field(default_factory=dict)
    drifted: tuple[str, ...] = ()


def views(facts: Facts) -> Iterator[ChartView]:
    yield from _metric(facts)
    yield from _confusion(facts)
    yield from _segments(facts)
    yield from _drift(facts)


def _metric(facts: Facts) -> Iterator[ChartView]:
    readings = [*(readings_of(facts.now) if facts.now else ()), *facts.looks]
    if readings:
        before = reading(facts.baseline.counts, facts.baseline.since, facts.baseline.until) if facts.baseline else None
        yield metric_view("F1 over time", readings, facts.marks, before)


def metric_view(title: str, readings: Sequence[Reading], marks: Sequence[Mark], baseline: Reading | None) -> ChartView:
    rows = [("baseline", *_cells(baseline))] if baseline else []
    rows += [(f"{_time(r.since)} to {_time(r.until)}" if r.until > r.since else _time(r.until), *_cells(r)) for r in readings]
    rows += [(_time(mark.at), metric_chart.letter(i), "", mark.words) for i, mark in enumerate(marks)]
    drawn = Markup(metric_chart.draw(title, readings, marks, baseline))  # noqa: S704 - all text in it is escaped
    note = "Bars: the 95 % interval. Letters: what was done, listed below."
    return ChartView(title, drawn, ("When (UTC)", "F1", "95 % interval", "Outcomes"), tuple(rows), note)


def _cells(one: Reading) -> tuple[str, str, str]:
    return f"{one.value:.2f}", _interval(one.low, one.high), "" if one.outcomes is None else str(one.outcomes)


def _interval(low: float | None, high: float | None) -> str:
    return f"{low:.2f} to {high:.2f}" if low is not None and high is not None else "not known"


def _confusion(facts: Facts) -> Iterator[ChartView]:
    for title, window in (("Outcomes before", facts.baseline), ("Outcomes in the incident", facts.now)):
        if window and window.counts.n:
            c = window.counts
            rows = (("failed", str(c.tp), str(c.fn)), ("did not fail", str(c.fp), str(c.tn)))
            drawn = Markup(charts.draw(Matrix(title, c), NARROW))  # noqa: S704
            yield ChartView(title, drawn, ("What happened", "Flagged", "Not flagged"), rows, _span(window))


def _segments(facts: Facts) -> Iterator[ChartView]:
    if not facts.now or len(facts.now.by_type) < 2:
        return
    before = facts.baseline.by_type if facts.baseline else {}
    biggest = sorted(facts.now.by_type.items(), key=lambda item: -item[1].n)[:MOST]
    found = [_estimate(name, counts, before.get(name)) for name, counts in sorted(biggest)]
    rows = tuple(
        (e.name, _figure(e.before), _figure(e.value), f"{e.low:.2f} to {e.high:.2f}" if e.value is not None else "") for e in found
    )
    drawn = Markup(charts.draw(Intervals("F1 by asset type", tuple(found), before_name="baseline")))  # noqa: S704
    yield ChartView("F1 by asset type", drawn, ("Asset type", "Baseline", "Now", "95 % interval"), rows)


def _estimate(name: str, counts: Confusion, before: Confusion | None) -> Estimate:
    low, high = f1_interval(counts)
    return Estimate(name, counts.f1, low, high, before.f1 if before else None)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _drift(facts: Facts) -> Iterator[ChartView]:
    most = sorted(facts.drift.items(), key=lambda item: (item[0] not in facts.drifted, -item[1], item[0]))[:MOST]
    if not any(value for _, value in most):
        return  # nothing has moved: the finding says so
    parts = {
        "drifted": tuple(value if name in facts.drifted else 0.0 for name, value in most),
        "as before": tuple(0.0 if name in facts.drifted else value for name, value in most),
    }
    drawn = Markup(charts.draw(Bars("Drift by feature", tuple(name for name, _ in most), parts)))  # noqa: S704
    rows = tuple((name, f"{value:.3f}", "drifted" if name in facts.drifted else "as before") for name, value in most)
    note = "How far the distribution lies from the reference: 0 the same, 1 nothing in common."
    yield ChartView("Drift by feature", drawn, ("Feature", "Distance", "Verdict"), rows, note)


def reading(counts: Confusion, since: datetime, until: datetime) -> Reading | None:
    """None where F1 is undefined: no failure among the outcomes, and none predicted."""
    if counts.f1 is None:
        return None
    return Reading(since, until, counts.f1, *f1_interval(counts), outcomes=counts.n)


def readings_of(window: Window) -> Iterator[Reading]:
    """Slice by slice where slices are known and have something to say, else as one."""
    length = (window.until - window.since) / max(len(window.blocks), 1)
    slices = [reading(block, window.since + i * length, window.since + (i + 1) * length) for i, block in enumerate(window.blocks)]
    known = [one for one in slices if one is not None]
    whole = reading(window.counts, window.since, window.until)
    yield from known if len(known) > 1 else [whole] if whole else []


def readings_of_blocks(blocks: OutcomeBlocks) -> tuple[Reading, ...]:
    """What the platform counted; other tasks than yes or no have no F1."""
    length, found = timedelta(seconds=blocks.block_s), []
    for i, tally in enumerate(blocks.blocks):
        if isinstance(tally, Confusion) and (one := reading(tally, blocks.since + i * length, blocks.since + (i + 1) * length)):
            found.append(one)
    return tuple(found)


def _time(at: datetime) -> str:
    at = at.astimezone(UTC)
    return f"{at.day} {at:%b %H:%M:%S}"


def _span(window: Window) -> str:
    return f"Predictions of {_time(window.since)} to {_time(window.until)} UTC with a known outcome: {window.counts.n}."


# --- from the store


def facts_of(conn: Connection, incident: Incident) -> Facts:
    kept = evidence.content(conn, incident.id, METRICS)
    now, baseline = windows(kept[0]) if kept else (None, None)
    triage = records.recall_if_readable(conn, incident.id, Triage)
    if baseline is None and triage and isinstance(triage.baseline, Confusion):
        baseline = Window(incident.detected_at, incident.detected_at, triage.baseline)
    scores = _drift_scores(conn, incident.id)
    return Facts(
        now,
        baseline,
        tuple(_looks(conn, incident, triage if now is None else None)),
        marks(conn, incident),
        {name: effect for name, (effect, _) in scores.items()},
        tuple(name for name, (_, drifted) in scores.items() if drifted),
    )


def marks(conn: Connection, incident: Incident) -> tuple[Mark, ...]:
    """The detection, and what was changed, oldest first."""
    rows = [row for row in journal.of_incident(conn, incident.id) if row.settled and row.done_at]
    done = [Mark(row.done_at, row.summary) for row in rows if row.done_at]
    ends = [Mark(incident.resolved_at, "resolved")] if incident.resolved_at else []
    return tuple(sorted([Mark(incident.detected_at, "detected"), *done[-MOST:], *ends], key=lambda mark: mark.at))


def windows(kept: bytes) -> tuple[Window | None, Window | None]:
    """The current window and the baseline of the evidence; None where it does not hold such counts."""
    try:
        body = json.loads(kept)
        return _window(body["current"]), _window(body["baseline"])
    except (ValueError, TypeError, KeyError):
        return None, None


def _window(body: Any) -> Window | None:
    counts = _counts(body["tally"])
    if counts is None:
        return None
    blocks = [_counts(one) for one in body.get("blocks") or ()]
    by_type = {str(name): found for name, one in (body.get("by_asset_type") or {}).items() if (found := _counts(one))}
    since, until = (body.get(f"outcomes_{end}") or body[end] for end in ("since", "until"))
    return Window(_moment(since), _moment(until), counts, tuple(one for one in blocks if one is not None), by_type)


def _counts(body: Any) -> Confusion | None:
    """A yes-or-no tally as JSON; None for any other."""
    if not isinstance(body, Mapping):
        return None
    cells = [cell for name in ("tp", "fp", "fn", "tn") if isinstance(cell := body.get(name), int) and cell >= 0]
    return Confusion(*cells) if len(cells) == 4 else None


def _moment(said: str) -> datetime:
    at = datetime.fromisoformat(said)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _looks(conn: Connection, incident: Incident, triage: Triage | None) -> Iterator[Reading]:
    """What triage measured, where the evidence does not say, and the look that showed the recovery."""
    if triage and triage.figures.f1_now is not None:
        yield Reading(incident.detected_at, incident.detected_at, triage.figures.f1_now, outcomes=triage.figures.labelled)
    found, at = records.recall_if_readable(conn, incident.id, Recovery), records.recorded_at(conn, incident.id, Recovery.key)
    if found and at and found.f1 is not None:
        yield Reading(at, at, found.f1, outcomes=found.labelled)


def _drift_scores(conn: Connection, incident_id: str) -> dict[str, tuple[float, bool]]:
    """By feature: how far, and whether that is drift. What another version wrote otherwise is left out."""
    found: dict[str, tuple[float, bool]] = {}
    for kept in records.with_prefix(conn, incident_id, "findings:").values():
        for one in kept.get("findings", ()):
            if one.get("key") == DRIFT and isinstance(one.get("value"), Mapping):
                for name, column in one["value"].items():
                    effect = column.get("effect") if isinstance(column, Mapping) else None
                    if isinstance(effect, int | float):
                        found[str(name)] = (float(effect), bool(column.get("found")))
    return found
