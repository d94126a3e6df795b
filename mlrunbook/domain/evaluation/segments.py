"""Which segments of the fleet lost performance: the overall figure often hides one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from mlrunbook.domain.evaluation.clustered import Parts, outcomes_per_one
from mlrunbook.domain.evaluation.performance import (
    Evidence,
    ModelMetrics,
    Verdict,
    WindowMetrics,
    clustering,
    grade_counts,
    grade_drop,
    relative_drop,
)
from mlrunbook.domain.policy.judging import DropPolicy, Worse
from mlrunbook.domain.tally import Confusion, Tally

# p-values are sought between these: below the first the rule's normal approximation means little, and nobody acts above the second.
_LEAST_P, _MOST_P = 1e-9, 0.5
_STEPS = 20


@dataclass(frozen=True)
class SegmentVerdict:
    """One segment. `verdict` None: it has no case (failure), so there is nothing to judge (N/A, never 0). `adjusted_p`: the false-alarm
    rate at which the segment would just be called fallen among the others; None where it is not judged."""

    name: str
    verdict: Verdict | None
    adjusted_p: float | None
    sentence: str

    @property
    def fell(self) -> bool:
        return self.verdict is not None and self.verdict.is_real

    @property
    def is_judged(self) -> bool:
        return self.verdict is not None and self.verdict.evidence is not Evidence.INSUFFICIENT


@dataclass(frozen=True)
class SegmentsVerdict:
    """All segments by name, and one sentence. `fell`: True when one did, None when one could not be judged, else False."""

    segments: tuple[SegmentVerdict, ...]
    sentence: str

    @property
    def fallen(self) -> tuple[SegmentVerdict, ...]:
        return tuple(s for s in self.segments if s.fell)

    @property
    def fell(self) -> bool | None:
        if self.fallen:
            return True
        judged = [s for s in self.segments if s.is_judged]
        waiting = [s for s in self.segments if s.verdict is not None and not s.is_judged]
        return None if waiting or not judged else False


@dataclass(frozen=True)
class Segments:
    """The tallies of one window by segment, and those of its blocks of time and of its assets where they are known."""

    tallies: Mapping[str, Tally]
    parts: Parts = field(default_factory=Parts)


def judge_asset_types(metrics: ModelMetrics, policy: DropPolicy) -> SegmentsVerdict:
    def of(window: WindowMetrics) -> Segments:
        return Segments(window.by_asset_type, parts_of(window))

    return judge_blocks_of_segments(of(metrics.baseline), of(metrics.current), policy, kind="asset type")


def parts_of(window: WindowMetrics) -> Parts:
    return Parts(window.blocks_by_asset_type, window.assets_by_asset_type)


def judge_segments(
    baseline: Mapping[str, Tally], current: Mapping[str, Tally], policy: DropPolicy, *, kind: str = "segment"
) -> SegmentsVerdict:
    """`judge_blocks_of_segments` where no blocks are known."""
    return judge_blocks_of_segments(Segments(baseline), Segments(current), policy, kind=kind)


def judge_blocks_of_segments(baseline: Segments, current: Segments, policy: DropPolicy, *, kind: str = "segment") -> SegmentsVerdict:
    """Grade every segment of `current` against its own baseline.

    Benjamini and Hochberg (1995) over the segments that have failures: the k most suspect fell when each is beyond chance at k/m of
    `false_alarm_rate`. So at most that share of the segments called fallen are false, and where nothing fell, at most that share of
    fleets has one called so. A segment without a failure, or that the baseline does not know, is not judged.
    `kind` is what the sentence calls a segment.
    """
    known = {name for name, tally in current.tallies.items() if tally.cases}

    per_one = _per_one(baseline, current, known, policy)

    def grade(name: str, at: DropPolicy) -> Verdict:
        now = current.tallies[name]
        before = baseline.tallies.get(name, type(now)())
        if isinstance(now, Confusion) and isinstance(before, Confusion):
            return grade_counts(before, now, at, per_one.get(name))
        blocks = current.parts.blocks.get(name, ()), baseline.parts.blocks.get(name, ())
        return grade_drop(before, now, at, blocks=blocks[0], baseline_blocks=blocks[1])

    suspects = {name for name in known if _is_past(baseline.tallies.get(name), current.tallies[name], policy)}
    p = {name: _p_value(partial(grade, name), policy) if name in suspects else 1.0 for name in sorted(known)}
    adjusted = _adjusted(p)
    called = sum(a <= policy.false_alarm_rate for a in adjusted.values())
    at = replace(policy, false_alarm_rate=policy.false_alarm_rate * max(called, 1) / max(len(known), 1))

    def judge(name: str, tally: Tally) -> SegmentVerdict:
        if name not in known:
            return SegmentVerdict(name, None, None, f"{name}: not applicable, {tally.seen}")
        verdict = grade(name, at)
        if verdict.evidence is Evidence.INSUFFICIENT:
            return SegmentVerdict(name, verdict, None, f"{name}: {verdict.reason}")
        return SegmentVerdict(name, verdict, adjusted[name], f"{name}: {verdict.reason}, adjusted p {_p_words(adjusted[name])}")

    segments = tuple(judge(name, tally) for name, tally in sorted(current.tallies.items()))
    return SegmentsVerdict(segments, _sentence(segments, kind))


def _per_one(baseline: Segments, current: Segments, known: Collection[str], policy: DropPolicy) -> dict[str, float]:
    """How many outcomes of each segment count as one. Neighbouring blocks tell of a cluster inside the window, too."""
    binary = {name for name in known if isinstance(current.tallies[name], Confusion)}
    before, now = baseline.parts.of(binary), current.parts.of(binary)
    found = outcomes_per_one(before, now, confidence=1 - policy.false_alarm_rate)
    for name in binary:
        near = clustering(now.blocks.get(name, ()), before.blocks.get(name, ()))
        if near is not None:
            found[name] = max(found.get(name, 1.0), near)
    return found


def _is_past(before: Tally | None, now: Tally, policy: DropPolicy) -> bool:
    """Whether any figure moved past its limit: there is no need to ask chance about the others."""
    rules = policy.rules_for(now.metrics)
    if before is None or before.task != now.task:
        return False
    drops = [(rule, relative_drop(before.figure(rule.name), now.figure(rule.name)) or 0.0) for rule in rules]
    return any((drop if rule.worse is Worse.LOWER else -drop) > rule.medium for rule, drop in drops)


def _p_value(grade: Callable[[DropPolicy], Verdict], policy: DropPolicy) -> float:
    """The lowest false-alarm rate at which the drop is real (repeated p-value, Jennison and Turnbull 2000, ch. 9); 1 when it never is."""

    def is_real(rate: float) -> bool:
        return grade(replace(policy, false_alarm_rate=rate)).is_real

    low, high = _LEAST_P, _MOST_P
    if not is_real(high):
        return 1.0
    for _ in range(_STEPS):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if is_real(middle) else (middle, high)
    return high


def _adjusted(p: Mapping[str, float]) -> dict[str, float]:
    """Benjamini and Hochberg's adjusted p-values: the smallest m p / rank from this rank on."""
    adjusted, least = {}, 1.0
    for rank, name in sorted(enumerate(sorted(p, key=lambda name: p[name]), 1), reverse=True):
        least = min(least, p[name] * len(p) / rank)
        adjusted[name] = least
    return adjusted


def _p_words(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _sentence(segments: Sequence[SegmentVerdict], kind: str) -> str:
    fallen = [s for s in segments if s.fell]
    if fallen:
        return "affected: " + "; ".join(f"{s.name} ({s.sentence.removeprefix(s.name + ': ')})" for s in fallen)
    waiting = [s.name for s in segments if s.verdict is not None and not s.is_judged]
    judged = [s.name for s in segments if s.is_judged]
    if waiting or not judged:
        return f"too few known failures to judge {', '.join(waiting) or f'any {kind}'}"
    return f"no {kind} is worse than its baseline ({', '.join(judged)})"
