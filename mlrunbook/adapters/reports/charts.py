"""The charts of the audits as SVG text: no script, no font or image from elsewhere. All text is escaped; each chart says in its title and
description what a reader who cannot see it needs."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import pairwise
from math import ceil, floor, log10
from typing import ClassVar

from mlrunbook.domain.audits.section import Bars, Chart, Intervals, Lines, Matrix
from mlrunbook.domain.communication.messages import line

WIDTH = 680
# Dark enough for text on white (WCAG 2.1, 4.5:1), and told apart by shape and dash too.
COLOURS = ("#0b5cad", "#b34700", "#00695c", "#6a3d9a", "#8c2d4f")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2")
SEVERITY = {"critical": "#8c1023", "high": "#c2570c", "medium": "#0b5cad", "low": "#8a939d"}
GRID, MUTED, LIMIT = "#d8dee4", "#57606a", "#a40e26"
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 10, 28
_MARKED = 40  # more points than this are drawn without markers


def escape(text: str) -> str:
    return html.escape(line(text))


def draw(chart: Chart, width: int = WIDTH) -> str:
    """`width`: of a matrix, for a place that is narrower than a page."""
    match chart:
        case Lines():
            return _lines(chart)
        case Intervals():
            return _intervals(chart)
        case Matrix():
            return _matrix(chart, width)
        case Bars():
            return _bars(chart)


def svg(height: float, title: str, about: str, body: str, width: int = WIDTH) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height:.0f}" role="img" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title><desc>{escape(about)}</desc>{body}</svg>"
    )


def text(x: float, y: float, words: str, anchor: str = "start", colour: str = "#1b1f24", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-size="{size}">{escape(words)}</text>'


def rule(x1: float, y1: float, x2: float, y2: float, colour: str = GRID, more: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" {more}/>'


def _marker(shape: int, x: float, y: float, colour: str) -> str:
    match shape % 4:
        case 0:
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.2" fill="{colour}"/>'
        case 1:
            return f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6" fill="{colour}"/>'
        case 2:
            return f'<path d="M{x:.1f} {y - 4:.1f}l4 7h-8z" fill="{colour}"/>'
        case _:
            return f'<path d="M{x:.1f} {y - 4:.1f}l4 4l-4 4l-4 -4z" fill="{colour}"/>'


def number(value: float, unit: str = "") -> str:
    """Three digits that matter, none behind the comma from 100 on."""
    if value == 0:
        return f"0{unit}"
    digits = max(0, 2 - floor(log10(abs(value)))) if abs(value) < 100 else 0
    shown = f"{value:.{min(digits, 4)}f}"
    return (shown.rstrip("0").rstrip(".") if "." in shown else shown) + unit


def _steps(high: float) -> list[float]:
    """0 and up to five round steps, the last at least `high`."""
    rough = high / 4
    power = 10.0 ** floor(log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    return [step * i for i in range(ceil(high / step - 1e-9) + 1)]


# --- lines ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plane:
    """Where a day and a value are in the picture."""

    first: date
    last: date
    ticks: Sequence[float]  # from 0 upwards
    top: ClassVar[float] = _TOP + 22
    height: ClassVar[float] = 170

    @property
    def bottom(self) -> float:
        return self.top + self.height

    @property
    def days(self) -> int:
        return max((self.last - self.first).days, 1)

    def x(self, day: date) -> float:
        middle = 0.5 if self.first == self.last else (day - self.first).days / self.days
        return _LEFT + middle * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return self.top + self.height * (1 - value / self.ticks[-1])


def _lines(chart: Lines) -> str:
    known = [v for values in chart.series.values() for v in values if v is not None]
    if not known:
        return _empty(chart.title)
    is_share, most = not chart.unit and max(known) <= 1, max(known)
    # A limit far above all values would press them flat; it is then said, not drawn.
    draws_limit = chart.limit is not None and (is_share or not most or chart.limit <= 4 * most)
    ticks = [0.0, 0.25, 0.5, 0.75, 1.0] if is_share else _steps(max(most, chart.limit or 0) if draws_limit else most or 1.0)
    plane = _Plane(chart.at[0], chart.at[-1], ticks)
    parts = [*_period(chart, plane), *_grid(chart, plane), *_calendar(plane)]
    for i, (name, values) in enumerate(chart.series.items()):
        parts += _series(chart.at, values, i, plane)
        if len(chart.series) > 1:
            parts += _legend(name, i)
    if chart.limit is not None:
        parts += _limit_across(chart, plane.y(chart.limit) if draws_limit else None)
    return svg(plane.bottom + _BOTTOM, chart.title, _about_lines(chart), "".join(parts))


def _period(chart: Lines, plane: _Plane) -> list[str]:
    """The audited period, shaded, where the chart begins before it."""
    if not chart.since or not plane.first < chart.since <= plane.last:
        return []
    left, right = plane.x(chart.since), plane.x(plane.last)
    return [
        f'<rect x="{left:.1f}" y="{plane.top}" width="{right - left:.1f}" height="{plane.height}" fill="{COLOURS[0]}" '
        f'fill-opacity="0.07"><title>the audited period</title></rect>'
    ]


def _grid(chart: Lines, plane: _Plane) -> list[str]:
    parts = []
    for tick in plane.ticks:
        y = plane.y(tick)
        parts += [rule(_LEFT, y, WIDTH - _RIGHT, y), text(_LEFT - 6, y + 4, number(tick, chart.unit), "end", MUTED, 11)]
    return parts


def _calendar(plane: _Plane) -> list[str]:
    parts = []
    for day in _dates(plane.first, plane.last):
        at, words = plane.x(day), f"{day:%b %Y}" if plane.days > 200 else f"{day.day} {day:%b}"
        parts.append(rule(at, plane.bottom, at, plane.bottom + 4, MUTED))
        parts.append(text(at, plane.bottom + 18, words, "end" if at > WIDTH - 30 else "middle", MUTED, 11))  # not cut off at the edge
    return parts


def _series(days: Sequence[date], values: Sequence[float | None], nth: int, plane: _Plane) -> list[str]:
    colour, dash = _stroke(nth)
    parts = []
    for run in _runs(days, values):
        points = " ".join(f"{plane.x(d):.1f},{plane.y(v):.1f}" for d, v in run)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8" stroke-dasharray="{dash}"/>')
        if len(days) <= _MARKED or len(run) == 1:
            parts += [_marker(nth, plane.x(d), plane.y(v), colour) for d, v in run]
    return parts


def _legend(name: str, nth: int) -> list[str]:
    colour, dash = _stroke(nth)
    at = _LEFT + nth * 150
    line_of_it = rule(at, 13, at + 26, 13, colour, f'stroke-width="1.8" stroke-dasharray="{dash}"')
    return [line_of_it, _marker(nth, at + 13, 13, colour), text(at + 32, 17, name)]


def _stroke(nth: int) -> tuple[str, str]:
    return COLOURS[nth % len(COLOURS)], DASHES[nth % len(DASHES)]


def _limit_across(chart: Lines, y: float | None) -> list[str]:
    """Named in the corner: beside the line its name would cover a value. None: it is too far above to be drawn."""
    if y is None:
        return [text(WIDTH - _RIGHT, 17, f"{_limit(chart)}, above the chart", "end", LIMIT, 11)]
    across = rule(_LEFT, y, WIDTH - _RIGHT, y, LIMIT, 'stroke-dasharray="6 4" stroke-width="1.3"')
    return [across, text(WIDTH - _RIGHT, 17, _limit(chart), "end", LIMIT, 11)]


def _runs(at: Sequence[date], values: Sequence[float | None]) -> list[list[tuple[date, float]]]:
    """Stretches without a gap: a line must not be drawn over days of which nothing is known."""
    longest = 1.5 * min((b - a for a, b in pairwise(at)), default=timedelta(1))
    runs: list[list[tuple[date, float]]] = []
    before: date | None = None
    for day, value in zip(at, values, strict=True):
        if value is None:
            before = None
            continue
        if before is None or day - before > longest:
            runs.append([])
        runs[-1].append((day, value))
        before = day
    return runs


def _dates(first: date, last: date, most: int = 8) -> list[date]:
    span = (last - first).days
    if span > 200:
        months = [date(y, m, 1) for y in range(first.year, last.year + 1) for m in range(1, 13)]
        inside = [d for d in months if first <= d <= last]
        return inside[:: ceil(len(inside) / 7)] if inside else [first]
    step = max(1, ceil(span / (most - 1)))
    if step > 3:
        step = ceil(step / 7) * 7
    return [first + timedelta(days=i) for i in range(0, span + 1, step)]


def _about_lines(chart: Lines) -> str:
    said = []
    for name, values in chart.series.items():
        known = [(v, d) for d, v in zip(chart.at, values, strict=True) if v is not None]
        if known:
            (low, at_low), (high, at_high) = min(known), max(known)
            words = f"lowest {number(low, chart.unit)} on {at_low}, highest {number(high, chart.unit)} on {at_high}"
            said.append(f"{name}: {words}, last {number(known[-1][0], chart.unit)} on {known[-1][1]}")
    if chart.limit is not None:
        said.append(_limit(chart))
    return "; ".join(said)


# --- intervals, bars, the matrix ------------------------------------------------------------------------------------------------


def _intervals(chart: Intervals) -> str:
    shown = [e for e in chart.estimates if e.value is not None]
    least = min([*(e.low for e in shown), *(e.before for e in shown if e.before is not None), 0.9])
    low = floor(least * 10) / 10 if shown else 0.0
    left, row, top = 250 if any(len(e.name) > 20 for e in chart.estimates) else 150, 30, 30
    step = 0.1 if low >= 0.4 else 0.2
    ticks = [1 - step * i for i in range(round((1 - low) / step) + 1) if 1 - step * i >= low - 1e-9]
    bottom = top + row * len(chart.estimates)

    def x(value: float) -> float:
        return left + (max(value, low) - low) / (1 - low) * (WIDTH - left - 60)

    parts = [_marker(0, left + 4, 12, COLOURS[0]), text(left + 14, 16, "period, with its interval", colour=MUTED, size=11)]
    if any(e.before is not None for e in shown):
        parts += [_hollow(left + 190, 12), text(left + 200, 16, chart.before_name, colour=MUTED, size=11)]
    for tick in ticks:
        parts += [rule(x(tick), top, x(tick), bottom), text(x(tick), bottom + 16, number(tick), "middle", MUTED, 11)]
    for i, one in enumerate(chart.estimates):
        y = top + row * (i + 0.5)
        parts.append(text(left - 10, y + 4, short(one.name), "end"))
        if one.value is None:
            parts.append(text(left + 8, y + 4, "not judged: too few outcomes", colour=MUTED, size=11))
            continue
        parts += [rule(x(one.low), y, x(one.high), y, COLOURS[0], 'stroke-width="3" stroke-opacity="0.45"')]
        if one.before is not None:
            parts.append(_hollow(x(one.before), y))
        parts += [_marker(0, x(one.value), y, COLOURS[0]), text(WIDTH - 50, y + 4, f"{one.value:.2f}", size=12)]
    said = [
        f"{e.name}: " + ("not judged" if e.value is None else f"{e.value:.2f}, interval {e.low:.2f} to {e.high:.2f}")
        for e in chart.estimates
    ]
    return svg(bottom + 24, chart.title, "; ".join(said), "".join(parts))


def _hollow(x: float, y: float) -> str:
    return f'<path d="M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5 -5z" fill="#fff" stroke="{COLOURS[1]}" stroke-width="1.6"/>'


def _bars(chart: Bars) -> str:
    totals = [sum(values[i] for values in chart.parts.values()) for i in range(len(chart.names))]
    if not totals:
        return _empty(chart.title)
    most = max([*totals, chart.limit or 0.0]) or 1.0
    whole = all(t == int(t) for t in totals)
    ticks = _steps(max(most, 4.0) if whole else most)  # there is no quarter of an incident
    left, row, top = (
        250 if any(len(name) > 24 for name in chart.names) else 180,
        24,
        26 if len(chart.parts) > 1 or chart.limit is not None else 8,
    )
    bottom = top + row * len(chart.names)

    def x(value: float) -> float:
        return left + value / ticks[-1] * (WIDTH - left - 70)

    parts = []
    for tick in ticks:
        parts += [rule(x(tick), top, x(tick), bottom), text(x(tick), bottom + 15, number(tick, chart.unit), "middle", MUTED, 11)]
    colours = [SEVERITY.get(part, COLOURS[n % len(COLOURS)]) for n, part in enumerate(chart.parts)]
    for i, name in enumerate(chart.names):
        y, reached = top + row * i, 0.0
        parts.append(text(left - 10, y + row / 2 + 4, short(name), "end"))
        for n, values in enumerate(chart.parts.values()):
            if values[i] > 0:
                width = x(reached + values[i]) - x(reached)
                parts.append(
                    f'<rect x="{x(reached):.1f}" y="{y + 4:.1f}" width="{width:.1f}" height="{row - 8}" fill="{colours[n]}" stroke="#fff"/>'
                )
            reached += values[i]
        parts.append(text(x(reached) + 5, y + row / 2 + 4, number(totals[i], chart.unit), colour=MUTED, size=11))
    if len(chart.parts) > 1:
        for n, name in enumerate(chart.parts):
            parts.append(f'<rect x="{left + n * 120}" y="6" width="12" height="12" fill="{colours[n]}"/>')
            parts.append(text(left + n * 120 + 17, 16, name, size=11))
    if chart.limit is not None:
        parts.append(rule(x(chart.limit), top - 6, x(chart.limit), bottom, LIMIT, 'stroke-dasharray="6 4" stroke-width="1.3"'))
        parts.append(text(x(chart.limit) + 4, top - 6, _limit(chart), colour=LIMIT, size=11))
    said = "; ".join(f"{name}: {number(value, chart.unit)}" for name, value in zip(chart.names, totals, strict=True))
    return svg(bottom + 22, chart.title, said, "".join(parts))


def _matrix(chart: Matrix, wide: int) -> str:
    """Rows are what happened, columns what the model said. The shade is the share of the row."""
    c = chart.counts
    cells = (("failed", (c.tp, c.fn)), ("did not fail", (c.fp, c.tn)))
    left, top, width, height = 130, 30, 150, 46
    parts = [text(left + width / 2, 20, "flagged", "middle", MUTED), text(left + 1.5 * width, 20, "not flagged", "middle", MUTED)]
    names = (("caught", "missed"), ("false alarm", "rightly quiet"))
    for row, (word, counts) in enumerate(cells):
        y = top + row * height
        parts.append(text(left - 10, y + height / 2 + 4, word, "end"))
        for column, count in enumerate(counts):
            of = count / sum(counts) if sum(counts) else 0.0
            x, opacity = left + column * width, 0.06 + 0.5 * of  # dark text stays readable on it
            parts.append(
                f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{COLOURS[0]}" fill-opacity="{opacity:.2f}" stroke="#fff"/>'
            )
            parts.append(text(x + width / 2, y + 21, f"{count:,}".replace(",", " "), "middle", size=15))
            parts.append(text(x + width / 2, y + 38, f"{names[row][column]}, {of * 100:.1f} %", "middle", size=11))
    about = f"failed: {c.tp} flagged, {c.fn} not flagged; did not fail: {c.fp} flagged, {c.tn} not flagged"
    return svg(top + 2 * height + 6, chart.title, about, "".join(parts), wide)


def _limit(chart: Lines | Bars) -> str:
    return f"{chart.limit_name or 'limit'} {number(chart.limit or 0.0, chart.unit)}"


def _empty(title: str) -> str:
    return svg(40, title, "nothing to draw", text(WIDTH / 2, 24, "nothing to draw yet", "middle", MUTED))


def short(name: str, most: int = 36) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
