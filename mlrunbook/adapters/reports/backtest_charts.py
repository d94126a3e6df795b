"""The charts of a backtest: F1 over time with what was alarmed and called, and drift by feature."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from math import ceil

from mlrunbook.adapters.reports.charts import COLOURS, GRID, LIMIT, MUTED, SEVERITY, WIDTH, escape, number, rule, short, svg, text
from mlrunbook.adapters.reports.time_scale import HEIGHT, LEFT, RIGHT, TOP, TimeScale
from mlrunbook.domain.backtest.result import Alarm, Backtest, Call, Drift, Point
from mlrunbook.domain.plural import counted

_LANE = 18
QUIET = "#8a939d"
REAL = ("real", "part_of_call")
MOST_FEATURES = 20


def timeline(found: Backtest) -> str:
    if not found.points:
        return ""
    time = TimeScale(found.facts.first, max([found.facts.last, *(c.at for c in found.calls)]))
    lanes = time.bottom + 6
    parts = [
        *_shaded(found.calls, time), *_axes(time, lanes + 2 * _LANE), *_band(found.points, time), *_line(found.points, time),
        *_flags(found.calls, time), *_baselines(found, time, lanes), *_alarms(found.alarms, time, lanes + _LANE),
        *_legend(),
    ]  # fmt: skip
    known = [p.f1 for p in found.points if p.f1 is not None]
    counts = f"{counted(len(found.alarms), 'plain alarm')}, {counted(len(found.calls), 'call')}"
    said = f"F1 between {min(known, default=0):.2f} and {max(known, default=0):.2f}; {counts}"
    return svg(lanes + 2 * _LANE + 30, "F1 over time", said, "".join(parts))


def _shaded(calls: Sequence[Call], time: TimeScale) -> Iterator[str]:
    """From when a fall set in until it was over."""
    for call in calls:
        left, right = time.x(call.began), time.x(call.over or call.closed or time.last)
        colour = SEVERITY.get(call.severity.value, LIMIT)
        words = f"call {call.number}: {call.severity.value}, began {_day(call.began)}, called {_day(call.at)}"
        words += f", recovered {_day(call.over)}" if call.over else ", did not recover" if call.closed else ", open at the end"
        yield (
            f'<rect x="{left:.1f}" y="{TOP}" width="{max(right - left, 1.5):.1f}" height="{HEIGHT}" fill="{colour}" fill-opacity="0.13">'
            f"<title>{escape(words)}</title></rect>"
        )


def _axes(time: TimeScale, bottom: float) -> Iterator[str]:
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        yield rule(LEFT, time.y(value), WIDTH - RIGHT, time.y(value))
        yield text(LEFT - 6, time.y(value) + 4, number(value), "end", MUTED, 11)
    span = time.last - time.first
    ticks = 6
    for k in range(ticks + 1):
        at = time.first + span * k / ticks
        x = time.x(at)
        words = f"{at:%b %Y}" if span.days > 300 else f"{at.day} {at:%b}" if span.days > 3 else f"{at.day} {at:%b %H:%M}"
        yield rule(x, time.bottom, x, bottom, GRID)
        yield text(x, bottom + 16, words, "start" if k == 0 else "end" if k == ticks else "middle", MUTED, 11)


def _runs(points: Sequence[Point]) -> Iterator[list[Point]]:
    for known, run in groupby(points, key=lambda p: p.f1 is not None):
        if known:
            yield list(run)


def _band(points: Sequence[Point], time: TimeScale) -> Iterator[str]:
    for run in _runs(points):
        upper = [f"{time.x(p.at):.1f},{time.y(p.high or 0):.1f}" for p in run]
        lower = [f"{time.x(p.at):.1f},{time.y(p.low or 0):.1f}" for p in reversed(run)]
        yield f'<polygon points="{" ".join([*upper, *lower])}" fill="{COLOURS[0]}" fill-opacity="0.16"/>'


def _line(points: Sequence[Point], time: TimeScale) -> Iterator[str]:
    for run in _runs(points):
        at = " ".join(f"{time.x(p.at):.1f},{time.y(p.f1 or 0):.1f}" for p in run)
        yield f'<polyline points="{at}" fill="none" stroke="{COLOURS[0]}" stroke-width="1.5" stroke-linejoin="round"/>'


def _flags(calls: Sequence[Call], time: TimeScale) -> Iterator[str]:
    for call in calls:
        x, colour = time.x(call.at), SEVERITY.get(call.severity.value, LIMIT)
        yield rule(x, TOP - 6, x, time.bottom, colour, 'stroke-width="1.4"')
        yield f'<circle cx="{x:.1f}" cy="{TOP - 12:.1f}" r="8" fill="{colour}"><title>called {_day(call.at)}</title></circle>'
        yield text(x, TOP - 8, str(call.number), "middle", "#fff", 10)


def _baselines(found: Backtest, time: TimeScale, y: float) -> Iterator[str]:
    yield text(LEFT - 6, y + 11, "base", "end", MUTED, 10)
    for since, until, f1 in dict.fromkeys((b.since, b.until, b.f1) for b in found.baselines):
        left, right = time.x(since), time.x(until)
        yield (
            f'<rect x="{left:.1f}" y="{y + 3:.1f}" width="{max(right - left, 2):.1f}" height="10" rx="2" fill="{COLOURS[2]}">'
            f"<title>{escape(f'baseline {_day(since)} to {_day(until)}, F1 {f1:.2f}')}</title></rect>"
        )


def _alarms(alarms: Sequence[Alarm], time: TimeScale, y: float) -> Iterator[str]:
    yield text(LEFT - 6, y + 11, "plain", "end", MUTED, 10)
    for alarm in alarms:
        real = alarm.verdict in REAL
        left, right = time.x(alarm.since), time.x(alarm.until)
        words = f"plain alarm {_day(alarm.since)}, F1 {alarm.worst_drop:.0%} lower: {verdict_words(alarm)}"
        yield (
            f'<rect x="{left:.1f}" y="{y + 3:.1f}" width="{max(right - left, 2):.1f}" height="10" fill="{LIMIT if real else QUIET}">'
            f"<title>{escape(words)}</title></rect>"
        )


def _legend() -> Iterator[str]:
    x = WIDTH - RIGHT - 292.0
    for colour, words, width in (
        (COLOURS[2], "baseline", 66), (QUIET, "plain alarm, not called", 144), (LIMIT, "in a call", 0)
    ):  # fmt: skip
        yield f'<rect x="{x:.1f}" y="2" width="10" height="8" fill="{colour}"/>'
        yield text(x + 14, 10, words, "start", MUTED, 10)
        x += width + 14


def verdict_words(alarm: Alarm) -> str:
    return {
        "real": f"real, call {alarm.call}",
        "part_of_call": f"call {alarm.call} was open",
        "chance": "explained by chance",
        "unproven": "undecided",
        "no_baseline": "no baseline yet",
    }[alarm.verdict]


def heatmap(drift: Drift) -> str:
    """A row a feature, a column a stretch of time; darker: further from the first stretch. A dot: drifted, beyond chance."""
    shown = drift.features[:MOST_FEATURES]
    left, top, row = 190.0, 8.0, 24.0
    width = (WIDTH - left - RIGHT) / len(drift.at)
    bottom = top + row * len(shown)
    parts = []
    for i, feature in enumerate(shown):
        y = top + row * i
        parts.append(text(left - 8, y + 16, short(feature.name, 26), "end"))
        for k, (distance, drifted) in enumerate(zip(feature.distance, feature.drifted, strict=True)):
            x = left + width * k
            words = f"{feature.name}, {_day(drift.at[k])}: " + ("not judged" if distance is None else f"distance {distance:.2f}")
            fill = (
                f'fill="{COLOURS[0]}" fill-opacity="{0.05 + 0.85 * min(distance / 0.5, 1.0):.2f}"'
                if distance is not None
                else 'fill="none"'
            )
            parts.append(
                f'<rect x="{x:.1f}" y="{y + 1:.1f}" width="{width - 2:.1f}" height="{row - 2:.1f}" rx="2" {fill} stroke="{GRID}">'
                f"<title>{escape(words + (', drifted' if drifted else ''))}</title></rect>"
            )
            if drifted:
                middle = x + width / 2 - 1
                parts.append(f'<circle cx="{middle:.1f}" cy="{y + row / 2:.1f}" r="4" fill="{LIMIT}" stroke="#fff" stroke-width="1.2"/>')
    for k in range(0, len(drift.at), max(1, ceil(len(drift.at) / 6))):
        parts.append(text(left + width * k, bottom + 15, f"{drift.at[k].day} {drift.at[k]:%b %y}", "start", MUTED, 10))
    moved = ", ".join(f.name for f in shown if any(f.drifted)) or "no feature"
    return svg(bottom + 22, "Drift by feature", f"drifted: {moved}", "".join(parts))


def _day(at: datetime | None) -> str:
    return f"{at:%d %b %Y %H:%M}" if at else ""
