"""What the accumulated outcomes prove, in a sentence: real, ruled out, unproven until when, or a baseline too short."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from math import ceil
from typing import NamedTuple

from mlrunbook.domain.evaluation.accumulated import Newest, PinnedBaseline, Trace, student, trace, worst_of_the_newest
from mlrunbook.domain.evaluation.block_score import Scores
from mlrunbook.domain.evaluation.long_run_variance import LEAST_ASSETS, LEAST_BLOCKS
from mlrunbook.domain.evaluation.performance import percent
from mlrunbook.domain.policy.judging import MetricRule, RunLengthPolicy

MOST_BLOCKS_AHEAD = 10**4


class Proof(StrEnum):
    """What the outcomes since the baseline prove."""

    REAL = "real"
    RULED_OUT = "ruled_out"
    UNPROVEN = "unproven"
    INSUFFICIENT = "insufficient"


@dataclass(frozen=True)
class Proven:
    """`fall`: relative, over the window that was judged, `low` to `high` its interval; None where nothing can be said. `over`: the newest
    blocks that are this window; `worst_over`: fewer, that alone are past the limit of a high incident, where the window is not.

    `undecided_for`: outcomes more until a planned fall would be proven, `undecided_until` when they will have come at the baseline's pace;
    both None where it is decided, or cannot be.
    """

    proof: Proof
    sentence: str
    fall: float | None = None
    low: float | None = None
    high: float | None = None
    undecided_for: int | None = None
    undecided_until: datetime | None = None
    over: int = 0
    worst_over: int | None = None


class Verbs(NamedTuple):
    """What a figure does that gets worse, that as a noun, and what one does that gets better."""

    worse: str
    noun: str
    better: str


@dataclass(frozen=True)
class Question:
    """What is judged: outcomes `since` the baseline was pinned, one score a closed block, oldest first; over the last `window` blocks
    (None: all of them), at `now`, when the newest block closed. `figure` is what the tally's figure is called; where more of it is worse,
    a `fall` is a rise. `pace_per_s`: how fast outcomes come, where that is faster than they did in the baseline. `exact`: how far the
    figure itself fell over so many of the newest blocks; sums over blocks take large falls for smaller ones, and more false alarms for
    worse than they are. None: not known."""

    since: Scores
    now: datetime
    window: int | None = None
    figure: str = "F1"
    more_is_worse: bool = False
    pace_per_s: float = 0.0
    exact: Callable[[int], float | None] = lambda _: None

    @property
    def verbs(self) -> Verbs:
        return Verbs("rose", "rise", "fell") if self.more_is_worse else Verbs("fell", "fall", "rose")


def judge(baseline: PinnedBaseline | None, asked: Question, policy: RunLengthPolicy, rule: MetricRule) -> Proven:
    """Whether the figure has fallen by more than the rule's medium limit since the baseline was pinned, beyond what chance explains.

    Ruled out: the whole interval lies below that limit.
    """
    figure = asked.figure
    if baseline is None:
        needed = f"{LEAST_BLOCKS} blocks of outcomes, or {LEAST_ASSETS} assets, are needed to know how much {figure} varies by itself"
        return Proven(Proof.INSUFFICIENT, f"baseline too short to prove a {asked.verbs.noun}: {needed}; keep collecting outcomes")
    seen = trace(baseline, asked.since, policy, window=asked.window, least=rule.medium)
    if not len(seen.height):
        return _undecided(baseline, asked, seen, policy, f"no block of outcomes has closed since the baseline of {figure}", rule)
    window, worst = Newest(float(seen.fall[-1]), float(seen.error[-1]), int(seen.over[-1])), _worst(baseline, asked, seen, policy, rule)
    fall, error, over = worst if worst and seen.proven[-1] else window
    half = student((1 - policy.confidence) / 2, baseline.dof) * error
    low, high = fall - half, fall + half
    moved = f"{figure} {_moved(asked.verbs, fall, low, high)}"
    if seen.proven[-1]:
        promise = f"at most {percent(policy.called_share)} of unchanged models come this far in {policy.within_days} days"
        shown = _moved(asked.verbs, *_at_scale(asked.exact(over), fall, low, high))
        return Proven(Proof.REAL, f"{figure} {shown}: beyond chance ({promise})", fall, low, high, over=over)
    worst_over = worst.over if worst else None
    if high < rule.medium:
        return Proven(Proof.RULED_OUT, f"{moved}: a {asked.verbs.noun} of {percent(rule.medium)} is ruled out", fall, low, high, over=over)
    found = _undecided(baseline, asked, seen, policy, moved, rule)
    return Proven(found.proof, found.sentence, fall, low, high, found.undecided_for, found.undecided_until, over, worst_over)


def _worst(baseline: PinnedBaseline, asked: Question, seen: Trace, policy: RunLengthPolicy, rule: MetricRule) -> Newest | None:
    """The newest blocks of the window, if they alone are past the limit of a high incident and the window is not: so that the first call of
    a collapse is as severe as the collapse."""
    found = None if rule.high is None or seen.fall[-1] > rule.high else worst_of_the_newest(baseline, asked.since, seen, policy)
    return found[0] if found and rule.high is not None and found[1] > rule.high and found[0].over < seen.over[-1] else None


def _undecided(baseline: PinnedBaseline, asked: Question, seen: Trace, policy: RunLengthPolicy, moved: str, rule: MetricRule) -> Proven:
    planned, verbs = percent(policy.planned_fall), asked.verbs
    ahead = blocks_ahead(baseline, seen, policy)
    if ahead is None:
        more = ceil(
            baseline.outcomes * (baseline.provable(policy) / max(policy.planned_fall - rule.medium / 2, policy.planned_fall / 4)) ** 2
        )
        known = f"its {asked.figure} is known to {percent(baseline.uncertainty)} from {baseline.outcomes:,} outcomes (standard error)"
        words = (
            f"baseline too short to prove {planned}: {known}, only {verbs.noun}s over {percent(baseline.provable(policy))} can be proven"
        )
        return Proven(Proof.INSUFFICIENT, f"{moved}; {words}; about {more:,} outcomes are needed, keep collecting")
    outcomes = ceil(ahead * baseline.outcomes / baseline.blocks)
    until = asked.now + timedelta(seconds=outcomes / max(asked.pace_per_s, baseline.outcomes / baseline.blocks / baseline.block_s))
    words = f"undecided until about {outcomes:,} more outcomes, {until:%d %b %Y %H:%M} UTC, if it {verbs.worse} {planned}"
    return Proven(Proof.UNPROVEN, f"{moved}: {words}", undecided_for=outcomes, undecided_until=until)


def blocks_ahead(baseline: PinnedBaseline, seen: Trace, policy: RunLengthPolicy) -> int | None:
    """Blocks of the baseline's size until a planned fall is proven, on average: the CUSUM climbs to its limit, and the window shows it.
    None: it never will be against this baseline."""
    height = float(seen.height[-1]) if len(seen.height) else 0.0
    climbing = (seen.limit - height) / (policy.planned_fall - policy.slack)
    spare = (policy.planned_fall / student(policy.window_called_share, baseline.dof)) ** 2 - baseline.uncertainty**2
    if spare <= 0:
        return None
    showing = baseline.variance / baseline.weight_per_block / spare - len(seen.height)
    ahead = max(1, ceil(climbing), ceil(showing))
    return ahead if ahead <= MOST_BLOCKS_AHEAD else None


def _at_scale(exact: float | None, fall: float, low: float, high: float) -> tuple[float, float, float]:
    """Fall and interval as the figure itself shows them, so that they agree with the figures beside them."""
    if exact is None or exact <= 0 or fall <= 0:
        return fall, low, high
    return exact, low * exact / fall, high * exact / fall


def _moved(verbs: Verbs, fall: float, low: float, high: float) -> str:
    most = max(high, 0) if verbs.worse == "rose" else min(max(high, 0), 1)
    interval = f"interval {percent(max(low, 0))} to {percent(most)}"
    if high <= 0:
        return f"{verbs.better} {percent(-fall)}"
    if verbs.worse == "fell" and fall >= 1:  # the sum is linear in the counts and goes on where the figure ends
        return "fell steeply"
    return f"{verbs.worse} {percent(fall)} ({interval})" if fall > 0 else f"did not {verbs.noun} ({interval})"
