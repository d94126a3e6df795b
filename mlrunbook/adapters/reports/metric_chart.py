"""A metric over the time of one incident, with its interval and the moment of each action."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from string import ascii_uppercase

from mlrunbook.adapters.reports.charts import COLOURS, LIMIT, MUTED, WIDTH, number, rule, svg, text
from mlrunbook.adapters.reports.time_scale import LEFT, RIGHT, TOP, TimeScale


@dataclass(frozen=True)
class Reading:
    """The metric of the predictions made between `since` and `until`; `low` and `high` None: its interval is not known."""

    since: datetime
    until: datetime
    value: float
    low: float | None = None
    high: float | None = None
    outcomes: int | None = None

    @property
    def at(self) -> datetime:
        return self.since + (self.until - self.since) / 2


@dataclass(frozen=True)
class Mark:
    """Something that was done or decided, or happened."""

    at: datetime
    words: str


def letter(nth: int) -> str:
    """
    >>> letter(0), letter(25), letter(26)
    ('A', 'Z', 'AA')
    """
    return (letter(nth // 26 - 1) if nth >= 26 else "") + ascii_uppercase[nth % 26]


def draw(title: str, readings: Sequence[Reading], marks: Sequence[Mark], baseline: Reading | None) -> str:
    """From 0 to 1. The baseline lies across, whenever it was measured; the marks are lettered, oldest first."""
    moments = [*(r.since for r in readings), *(r.until for r in readings), *(m.at for m in marks)]
    if not moments:
        return ""
    time = TimeScale(min(moments), max(moments))
    parts = [*_axes(time), *_baseline(time, baseline), *_readings(time, readings), *_marks(time, marks)]
    return svg(time.bottom + 30, title, _about(readings, marks, baseline), "".join(parts))


def _axes(time: TimeScale) -> Iterator[str]:
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        yield rule(LEFT, time.y(value), WIDTH - RIGHT, time.y(value))
        yield text(LEFT - 6, time.y(value) + 4, number(value), "end", MUTED, 11)
    span, ticks = time.last - time.first, 5
    for k in range(ticks + 1):
        at = time.first + span * k / ticks
        words = f"{at.day} {at:%b}" if span.days > 5 else f"{at.day} {at:%b %H:%M}" if span.days else f"{at:%H:%M:%S}"
        yield rule(time.x(at), time.bottom, time.x(at), time.bottom + 4, MUTED)
        yield text(time.x(at), time.bottom + 18, words, "start" if k == 0 else "end" if k == ticks else "middle", MUTED, 11)


def _baseline(time: TimeScale, baseline: Reading | None) -> Iterator[str]:
    if baseline is None:
        return
    left, right, y = LEFT, WIDTH - RIGHT, time.y(baseline.value)
    if baseline.low is not None and baseline.high is not None:
        top = time.y(baseline.high)
        height = max(time.y(baseline.low) - top, 1.0)
        yield f'<rect x="{left}" y="{top:.1f}" width="{right - left}" height="{height:.1f}" fill="{COLOURS[2]}" fill-opacity="0.14"/>'
    yield rule(left, y, right, y, COLOURS[2], 'stroke-width="1.5" stroke-dasharray="6 4"')
    yield text(right, y - 5, f"baseline {baseline.value:.2f}", "end", COLOURS[2], 11)


def _readings(time: TimeScale, readings: Sequence[Reading]) -> Iterator[str]:
    in_time = sorted(readings, key=lambda r: r.at)
    points = " ".join(f"{time.x(r.at):.1f},{time.y(r.value):.1f}" for r in in_time)
    if len(in_time) > 1:
        yield f'<polyline points="{points}" fill="none" stroke="{COLOURS[0]}" stroke-width="1.5" stroke-linejoin="round"/>'
    for one in in_time:
        x = time.x(one.at)
        if one.low is not None and one.high is not None:
            yield rule(x, time.y(one.low), x, time.y(one.high), COLOURS[0], 'stroke-width="3" stroke-opacity="0.4"')
        yield f'<circle cx="{x:.1f}" cy="{time.y(one.value):.1f}" r="3.5" fill="{COLOURS[0]}"/>'


def _marks(time: TimeScale, marks: Sequence[Mark]) -> Iterator[str]:
    """Letters of one moment stand beside each other."""
    for nth, (mark, at) in enumerate(zip(marks, _apart([time.x(mark.at) for mark in marks]), strict=True)):
        x = time.x(mark.at)
        yield rule(x, TOP - 6, x, time.bottom, LIMIT if nth == 0 else MUTED, 'stroke-width="1.2" stroke-dasharray="2 3"')
        yield f'<circle cx="{at:.1f}" cy="{TOP - 14}" r="8" fill="{LIMIT if nth == 0 else MUTED}"/>'
        yield text(at, TOP - 10, letter(nth), "middle", "#fff", 10)


def _apart(places: Sequence[float], wide: float = 17.0) -> list[float]:
    """The same places in order, each so far from the next, and the last inside the picture."""
    found, right = list(places), WIDTH - 9.0
    for i in range(1, len(found)):
        found[i] = max(found[i], found[i - 1] + wide)
    for i in reversed(range(len(found))):
        found[i] = min(found[i], right)
        right = found[i] - wide
    return found


def _about(readings: Sequence[Reading], marks: Sequence[Mark], baseline: Reading | None) -> str:
    values = [r.value for r in readings]
    said = [f"between {min(values):.2f} and {max(values):.2f}, last {max(readings, key=lambda r: r.at).value:.2f}"] if values else []
    said += [f"baseline {baseline.value:.2f}"] if baseline else []
    return "; ".join([*said, *(f"{letter(i)} {mark.at:%H:%M:%S} {mark.words}" for i, mark in enumerate(marks))])
