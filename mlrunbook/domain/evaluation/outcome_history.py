"""What all outcomes since the baseline was pinned say together: `proof`, asked by the rules of policy, as the verdict that triage reads.

The metric that leads spends most of the promise, and every other one of its task the rest, as with a single window. Each is judged by its
own sum over blocks: F1, precision and recall by sums that rarer failures alone do not move, any other figure to first order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from math import ceil
from typing import NamedTuple

from mlrunbook.domain.evaluation.accumulated import pin
from mlrunbook.domain.evaluation.base_rate import fewer_failures
from mlrunbook.domain.evaluation.block_score import SCORES, Rates, Scores, Stacked, relative
from mlrunbook.domain.evaluation.long_run_variance import LEAST_BATCHES, LEAST_BLOCKS
from mlrunbook.domain.evaluation.outcome_blocks import OutcomeBlocks as OutcomeBlocks
from mlrunbook.domain.evaluation.outcome_blocks import OutcomeHistory as OutcomeHistory
from mlrunbook.domain.evaluation.performance import Evidence, ModelMetrics, Verdict, WindowMetrics, grade_window, percent
from mlrunbook.domain.evaluation.proof import Proof, Proven, Question, judge
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.policy.judging import F1, FALSE_ALARMS, PRECISION, RECALL, DropPolicy, MetricRule, SeverityPolicy, WindowPolicy, Worse
from mlrunbook.domain.tally import Confusion, Tally, total

TIMES_ENOUGH = 3  # what the window judged holds, in times what a window must hold, at the baseline's pace
NEWEST = 3  # slices of the window that say how fast outcomes come
OTHERS_SHARE = 0.1  # of the promise, for each metric that does not lead


class _Asked(NamedTuple):
    now: datetime
    pace_per_s: float


class _Judged(NamedTuple):
    """A metric and what is proven of it. `was` and `now`: its figure in the baseline and in the window that was judged, in the same mix of
    outcomes; None where it has none."""

    rule: MetricRule
    called: str
    found: Proven
    was: float | None
    now: float | None

    @property
    def fall(self) -> float:
        """Of the figures themselves, where they are known."""
        exact = _exact(self.rule, self.was, self.now)
        return (self.found.fall or 0.0) if exact is None else exact

    @property
    def severity(self) -> Severity:
        return self.rule.severity(self.fall)


def _exact(rule: MetricRule, was: float | None, now: float | None) -> float | None:
    if not was or now is None:
        return None
    fall = 1 - now / was
    return -fall if rule.worse is Worse.HIGHER else fall


def judge_history(history: OutcomeHistory, now: datetime, policy: SeverityPolicy, *, pace_per_s: float = 0.0) -> Verdict:
    """Whether performance fell since the baseline was pinned, over all looks at it. `pace_per_s`: how fast outcomes come now.

    REAL: beyond chance, and past a limit. FALSE_ALARM: such a fall is ruled out. UNPROVEN: neither yet, and the outcomes that come will
    decide. INSUFFICIENT: this baseline can never prove one.
    """
    baseline = history.baseline.tally
    rules = policy.drops.rules_for(baseline.metrics) if baseline else ()
    if baseline is None or not rules:
        return Verdict(Evidence.INSUFFICIENT, None, "no outcome of the time when the model was healthy: nothing to compare with")
    judged, asked = [], _Asked(now, pace_per_s)
    for k, rule in enumerate(rules):
        found = _proven(history, baseline, rule, asked, _share(policy, rules, k))
        judged.append(_Judged(rule, baseline.metrics[rule.name], found, *_figures(history, baseline, rule, found.over)))
    verdict = _verdict(judged, history)
    same = _fewer_failures(judged[0], history, policy.drops) if verdict.evidence is Evidence.FALSE_ALARM else None
    return replace(verdict, reason=f"{same} ({_seen(history)})") if same else verdict


def _fewer_failures(leading: _Judged, history: OutcomeHistory, drops: DropPolicy) -> str | None:
    """What says so, where F1 fell past its limit by the plain counts, and the model is the same."""
    before, window = history.baseline.tally, history.since.blocks[-max(leading.found.over, LEAST_BLOCKS) :]
    now = total(window)
    if leading.rule.name != F1 or not isinstance(before, Confusion) or not isinstance(now, Confusion):
        return None
    if not before.f1 or now.f1 is None or now.f1 >= before.f1 * (1 - drops.most(F1)):
        return None
    return fewer_failures(window, history.baseline.blocks, drops)


def grade_metrics(metrics: ModelMetrics, policy: SeverityPolicy) -> Verdict:
    """Whether performance fell: what all outcomes since the baseline was pinned say, where they are known and that baseline can say it;
    else what this look's window says by itself.

    A window that begins at a change is looked at because of it, once: what it shows by itself stands. Where the window shows a fall and
    all outcomes together rule one out, it has either just begun or is chance: the next blocks tell.
    """
    alone, history = grade_window(metrics, policy.drops), metrics.history
    if history is None or (history.after_change and alone.evidence is not Evidence.INSUFFICIENT):
        return alone
    now = metrics.current.until
    pace_per_s = _pace_per_s(metrics.current)
    together = judge_history(history, now, policy, pace_per_s=pace_per_s)
    if together.evidence is Evidence.INSUFFICIENT:
        return alone
    if alone.is_real and together.evidence is Evidence.FALSE_ALARM:
        until = now + _blocks_take(LEAST_BATCHES, history.baseline, pace_per_s)
        both = f"{alone.reason}; yet together with what came before, {together.reason}: undecided until {until:%d %b %Y %H:%M} UTC"
        return replace(together, evidence=Evidence.UNPROVEN, reason=both, undecided_until=until)
    return together


def _pace_per_s(window: WindowMetrics) -> float:
    """Outcomes that came of the newest predictions of the window."""
    length = ((window.outcomes_until or window.until) - (window.outcomes_since or window.since)).total_seconds()
    newest = window.blocks[-NEWEST:]
    seconds = length * len(newest) / len(window.blocks) if newest else length
    return (sum(block.n for block in newest) if newest else window.labelled) / seconds if seconds > 0 else 0.0


def _blocks_take(count: int, baseline: OutcomeBlocks, pace_per_s: float) -> timedelta:
    """How long as many outcomes take as so many blocks of the baseline hold."""
    held = sum(block.n for block in baseline.blocks) / len(baseline.blocks)
    return timedelta(seconds=count * min(baseline.block_s, held / pace_per_s if pace_per_s > 0 else baseline.block_s))


def _share(policy: SeverityPolicy, rules: Sequence[MetricRule], position: int) -> SeverityPolicy:
    """The part of the promise that is spent on one of the metrics."""
    part = 1 - OTHERS_SHARE * (len(rules) - 1) if position == 0 else OTHERS_SHARE
    whole = policy.run_length
    spent = replace(whole, called_share=part * whole.called_share, window_called_share=part * whole.window_called_share)
    return replace(policy, run_length=spent)


def _proven(history: OutcomeHistory, baseline: Tally, rule: MetricRule, asked: _Asked, policy: SeverityPolicy) -> Proven:
    scored = _scores(history, baseline, rule)
    pinned = since = None
    if scored is not None:
        before, assets, since = scored
        pinned = pin(before, assets, outcomes=baseline.n, block_s=history.baseline.block_s)
    window = _window(history.baseline, baseline, policy.window)
    none_yet = Scores((), ())
    worse, called = rule.worse is Worse.HIGHER, baseline.metrics[rule.name]

    def exact(over: int) -> float | None:
        return _exact(rule, *_figures(history, baseline, rule, over))

    question = Question(since if since is not None else none_yet, asked.now, window, called, worse, asked.pace_per_s, exact)
    planned = max(policy.run_length.planned_fall, rule.planned)  # a smaller one may lie within the rule's limit
    return judge(pinned, question, replace(policy.run_length, planned_fall=planned), rule)


def _scores(history: OutcomeHistory, baseline: Tally, rule: MetricRule) -> tuple[Scores, Scores | None, Scores] | None:
    """Of the baseline's blocks, its assets, and the blocks since; None where the baseline holds nothing to fall from."""
    if isinstance(baseline, Confusion):
        rates = Rates.of(baseline)
        of = SCORES.get(rule.name)
        if rates is None or of is None:
            return None

        def counted(tallies: Sequence[Tally]) -> Scores:
            return of(Stacked.of([t for t in tallies if isinstance(t, Confusion)]), rates)
    else:
        figure = baseline.figure(rule.name)
        if not figure:
            return None

        def counted(tallies: Sequence[Tally]) -> Scores:
            return _first_order(tallies, baseline, rule, figure)

    assets = counted(history.baseline.by_asset) if history.baseline.by_asset else None
    return counted(history.baseline.blocks), assets, counted(history.since.blocks)


def _figures(history: OutcomeHistory, baseline: Tally, rule: MetricRule, over: int) -> tuple[float | None, float | None]:
    """Of the baseline, and of the newest blocks."""
    window = total(history.since.blocks[-over:]) if over else None
    if window is None:
        return None, None
    if isinstance(baseline, Confusion) and isinstance(window, Confusion):
        return _at_the_same_mix(baseline, rule, baseline), _at_the_same_mix(window, rule, baseline)
    return baseline.figure(rule.name), window.figure(rule.name)


def _at_the_same_mix(counts: Confusion, rule: MetricRule, baseline: Confusion) -> float | None:
    usual = Rates.of(baseline)
    if usual is None or not counts.positives:
        return None
    rates = Rates.of(counts)
    if rates is None:
        return 0.0 if not counts.tp and rule.name in (F1, PRECISION, RECALL) else None
    share = usual.positive_rate
    figures = {F1: rates.f1_at(share), PRECISION: rates.precision_at(share), RECALL: rates.recall, FALSE_ALARMS: rates.false_positive_rate}
    return figures.get(rule.name)


def _first_order(tallies: Sequence[Tally], baseline: Tally, rule: MetricRule, figure: float) -> Scores:
    import numpy as np

    scored = np.array([tally.score(rule.name, baseline) for tally in tallies], float).reshape(-1, 2)
    return relative(scored[:, 0], scored[:, 1], figure, more_is_worse=rule.worse is Worse.HIGHER)


def _window(blocks: OutcomeBlocks, held: Tally, policy: WindowPolicy) -> int:
    """Blocks that hold what an evaluation window is to hold, at the baseline's pace."""
    shares = (policy.min_outcomes / max(held.n, 1), policy.min_positives / max(held.cases, 1))
    return max(1, ceil(TIMES_ENOUGH * max(shares) * len(blocks.blocks)))


def _verdict(judged: Sequence[_Judged], history: OutcomeHistory) -> Verdict:
    leading = judged[0]
    real = [one for one in judged if one.found.proof is Proof.REAL]
    seen = _seen(history)
    if real:
        said = max(real, key=lambda one: one.severity.rank)
        graded = max((said, _at_worst(leading, history)), key=lambda one: one.severity.rank)
        worst, drop = graded.severity, graded.fall if graded.rule is leading.rule else leading.fall
        whose = "" if graded.rule is said.rule else f"{graded.called} "
        limit = graded.rule.limit(graded.fall)
        past = f", over {percent(limit)}" if graded.fall > limit else ""
        reason = f"{said.found.sentence}; {whose}{_moved(graded, history)}{seen}: {worst}{past}"
        return Verdict(Evidence.REAL, worst, reason, drop, tuple(one.rule.name for one in real))
    open_ = next((one for one in judged if _is_open(one, leads=one is leading)), None)
    found = (open_ or leading).found
    evidence = {
        Proof.RULED_OUT: Evidence.FALSE_ALARM,
        Proof.UNPROVEN: Evidence.UNPROVEN,
        Proof.INSUFFICIENT: Evidence.INSUFFICIENT,
        Proof.REAL: Evidence.REAL,
    }[found.proof]
    reason, until = f"{found.sentence} ({seen})", found.undecided_until
    return Verdict(evidence, None, reason, leading.found.fall, undecided_until=until, at_most=leading.found.high)


def _at_worst(one: _Judged, history: OutcomeHistory) -> _Judged:
    """Over the newest blocks alone, where these are worse. That something fell is proven: how far says what is most likely."""
    baseline = history.baseline.tally
    if one.found.worst_over is None or baseline is None:
        return one
    was, now = _figures(history, baseline, one.rule, one.found.worst_over)
    return one._replace(was=was, now=now)


def _is_open(one: _Judged, *, leads: bool) -> bool:
    """Not ruled out; a metric that does not lead is only asked about where it seems to have fallen past its limit."""
    found = one.found
    if leads:
        return found.proof is not Proof.RULED_OUT
    return found.proof is Proof.UNPROVEN and found.fall is not None and found.fall > one.rule.medium


def _moved(one: _Judged, history: OutcomeHistory) -> str:
    if one.was is None or one.now is None:
        return ""
    shown, mixed = history.baseline.blocks[0].shown, one.rule.name in (F1, PRECISION)
    return f"{shown(one.was)} -> {shown(one.now)}{' at the usual share of failures' if mixed else ''}, "


def _seen(history: OutcomeHistory) -> str:
    before, since = history.baseline, total(history.since.blocks)
    known = f"{since.seen} since {history.since.since:%d %b %Y %H:%M} UTC" if since else "no outcome since"
    return f"{known}, against {before.since:%d %b} to {before.until:%d %b %Y}"
