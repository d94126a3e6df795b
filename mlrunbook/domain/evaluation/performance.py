"""Counts of right and wrong predictions, the metrics of the runbook, and whether a drop is real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from mlrunbook.domain.evaluation.base_rate import fewer_failures
from mlrunbook.domain.evaluation.block_errors import LEAST_BLOCKS, held
from mlrunbook.domain.evaluation.clustered import Grouped, clustering_of_group
from mlrunbook.domain.evaluation.failure_rate import moves_at_baseline_rate, raises_more_false_alarms, rates_words
from mlrunbook.domain.evaluation.long_run_variance import LEAST_ASSETS
from mlrunbook.domain.evaluation.moves import Move, moves_by_blocks, moves_of_counts
from mlrunbook.domain.evaluation.moves import f1_interval as f1_interval
from mlrunbook.domain.evaluation.moves import percent as percent
from mlrunbook.domain.evaluation.moves import relative_drop as relative_drop
from mlrunbook.domain.evaluation.moves import wilson as wilson
from mlrunbook.domain.evaluation.moves import z_value as z_value
from mlrunbook.domain.evaluation.outcome_blocks import OutcomeHistory
from mlrunbook.domain.evaluation.sequential import clustering_of, dispersion, joined_slices, outcomes_to_detect
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.policy.judging import F1, PRECISION, RECALL, DropPolicy
from mlrunbook.domain.tally import Confusion as Confusion
from mlrunbook.domain.tally import Tally, as_binary


@dataclass(frozen=True)
class Rewritten:
    """Known outcomes that are not what was first reported, and were changed by somebody else, or after they had settled
    (`OutcomesPolicy`): `count` of them among `of`, `by` whom. `first` and `now` are the counts of all of these outcomes, as first
    reported and as they are. `oldest` and `newest` are of the predictions concerned, where they are not those of one window."""

    count: int = 0
    of: int = 0
    by: Mapping[str, int] = field(default_factory=dict)
    first: Confusion = field(default_factory=Confusion)
    now: Confusion = field(default_factory=Confusion)
    oldest: datetime | None = None
    newest: datetime | None = None


@dataclass(frozen=True)
class WindowMetrics:
    """What a model did between `since` and `until`.

    `labelled` counts predictions whose outcome is known (`tally` covers those, `confusion` where the task is binary); `flagged_share` is
    the share of all predictions labelled high-risk; `null_rate` the worst feature's share of nulls; latencies in ms, rates in 0..1.
    `label_delay_s` is the median time from a prediction to its outcome, over the outcomes that have come; None where the platform does
    not say.
    `outcomes_due` are predictions old enough for their outcome to be expected (`outcomes.due_age_s`), `outcomes_missing` those of
    them without one; None likewise. `errors` counts the assets asked for that got no prediction by kind (features, invalid_features,
    scoring, storage, no_model, busy, internal), `refused` those that were the caller's own mistake and are no part of
    `error_rate`; empty where the platform does not say. `blocks` are the tallies of equal slices of the window's time,
    oldest first (`blocks_by_asset_type`: of each type), `assets_by_asset_type` those of single assets: how much outcomes come in clusters;
    empty likewise. `rewritten`: its outcomes
    that were changed; None likewise.
    `mature_age_s`: the age at which 99 % of the outcomes of each class had come; None likewise.
    `outcomes_since`, `outcomes_until`: when the predictions were made whose outcomes these are, where the window itself holds too few
    (`outcome_window`); `outcomes_of` says why in words.
    """

    since: datetime
    until: datetime
    predictions: int
    labelled: int
    tally: Tally
    flagged_share: float | None = None
    latency_p95_ms: float | None = None
    error_rate: float | None = None
    null_rate: float | None = None
    versions: tuple[str, ...] = ()
    by_risk_level: Mapping[str, Confusion] = field(default_factory=dict)
    by_asset_type: Mapping[str, Tally] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    label_delay_s: float | None = None
    outcomes_due: int | None = None
    outcomes_missing: int | None = None
    blocks: tuple[Tally, ...] = ()
    blocks_by_asset_type: Mapping[str, tuple[Tally, ...]] = field(default_factory=dict)
    assets_by_asset_type: Mapping[str, tuple[Tally, ...]] = field(default_factory=dict)
    rewritten: Rewritten | None = None
    mature_age_s: float | None = None
    outcomes_since: datetime | None = None
    outcomes_until: datetime | None = None
    outcomes_of: str = ""

    @property
    def confusion(self) -> Confusion:
        """What questions about failures and alarms are asked of (`tally.as_binary`)."""
        return as_binary(self.tally)

    @property
    def requests(self) -> int | None:
        """Assets asked for, with or without a prediction. None: every request failed and the platform does not say how many there were."""
        if self.errors or not self.error_rate:
            return self.predictions + sum(self.errors.values())
        return round(self.predictions / (1 - self.error_rate)) if self.error_rate < 1 else None


@dataclass(frozen=True)
class ModelMetrics:
    """`GET /api/v1/model-performance/metrics/{model}`: the current window against the baseline. `rewritten_lately`: outcomes changed in
    the last day, of predictions however old; None where the platform does not say. `history`: all outcomes since the baseline was pinned;
    None where they are not known, and the two windows alone are compared."""

    model: str
    current: WindowMetrics
    baseline: WindowMetrics
    rewritten_lately: Rewritten | None = None
    history: OutcomeHistory | None = None

    @property
    def null_rise(self) -> float | None:
        """How much emptier the worst feature is than that of the baseline: one that was always a third empty is no trouble. None: not
        known."""
        now = self.current.null_rate
        return None if now is None else max(now - (self.baseline.null_rate or 0.0), 0.0)


HARDLY = 0.02  # where the failure rate explains no more of a fall than this, the sentence leaves it out


class Evidence(StrEnum):
    """What the counts say about a suspected drop."""

    REAL = "real"
    FALSE_ALARM = "false_alarm"
    UNPROVEN = "unproven"  # not yet: the outcomes that come will decide
    INSUFFICIENT = "insufficient_evidence"


@dataclass(frozen=True)
class Verdict:
    """Whether performance fell. `severity` is set only when it is real. `drop` is of the metric that leads, relative to the baseline and
    negative for the better; `fell` are the metrics past their limit beyond chance, as policy calls them. `undecided_until`: when an
    unproven one will be decided, at the usual pace of outcomes; `at_most`: the upper end of its interval, of the metric that leads."""

    evidence: Evidence
    severity: Severity | None
    reason: str
    drop: float | None = None
    fell: tuple[str, ...] = ()
    undecided_until: datetime | None = None
    at_most: float | None = None

    @property
    def is_real(self) -> bool:
        return self.evidence is Evidence.REAL

    @property
    def is_decided(self) -> bool:
        return self.evidence in (Evidence.REAL, Evidence.FALSE_ALARM)

    @property
    def precision_fell(self) -> bool:
        return PRECISION in self.fell

    @property
    def recall_fell(self) -> bool:
        return RECALL in self.fell


def clustering(blocks: Sequence[Tally], baseline_blocks: Sequence[Tally], baseline_assets: Sequence[Tally] = ()) -> float | None:
    """How many outcomes count as one because they come in clusters; None where neither window says. See `sequential.clustering_of`.

    Outcomes that overlap, as those of a horizon do, differ little from slice to slice: longer batches of the baseline, and its assets, see
    what neighbours do not.
    """
    import numpy as np

    def measured(blocks: Sequence[Tally]) -> tuple[float, float]:
        window = [as_binary(block) for block in held(blocks)]
        trials = np.array([c.tp + c.fp + c.fn for c in window], float)
        joined = joined_slices(len(window), float(trials.sum()))
        if not joined:
            return 1.0, 0.0
        return float(dispersion(np.array([c.tp for c in window], float), trials, joined)), len(window) / joined

    if not blocks and not baseline_blocks:
        return None
    near = float(clustering_of(*measured(baseline_blocks), *measured(blocks)))
    far = clustering_of_group(Grouped.of(baseline_blocks, baseline_assets))
    return max(near, far.per_one) if far else near


def grade_drop(
    baseline: Tally,
    current: Tally,
    policy: DropPolicy,
    *,
    blocks: Sequence[Tally] = (),
    baseline_blocks: Sequence[Tally] = (),
    baseline_assets: Sequence[Tally] = (),
) -> Verdict:
    """Decide whether performance truly fell, and how badly, by the rules of the policy that are about metrics of this task.

    A drop is real when the point estimate is past the limit AND beyond chance however often one looks. It is a false alarm when it is
    within the limits, or when the interval shown still holds the baseline. In between, and on few failures, the evidence is
    insufficient: look again. `blocks` and `baseline_blocks` are the tallies of equal slices of time, oldest first; with neither, binary
    outcomes are taken as independent, and the sentence says so, and nothing else can be judged. `baseline_assets`: one tally an asset.

    >>> grade_drop(Confusion(tp=80, fp=18, fn=22, tn=880), Confusion(tp=50, fp=30, fn=52, tn=868), DropPolicy()).reason
    'F1 fell 31 % (0.80 -> 0.55, 95 % interval 0.46-0.63; 102 failures in 1000 outcomes, taken as independent): high, over 20 %'
    """
    if nothing := _nothing_to_compare(baseline, current, policy):
        return nothing
    if isinstance(baseline, Confusion) and isinstance(current, Confusion):
        found = grade_counts(baseline, current, policy, clustering(blocks, baseline_blocks, baseline_assets))
        if found.evidence is Evidence.REAL and (few := _too_few_blocks(blocks, baseline_blocks, baseline_assets)):
            return replace(
                found, evidence=Evidence.INSUFFICIENT, severity=None, fell=(), reason=f"{found.reason}{few}: insufficient evidence"
            )
        same = fewer_failures(blocks, baseline_blocks, policy) if found.evidence is not Evidence.REAL else None
        return replace(found, evidence=Evidence.FALSE_ALARM, reason=same) if same else found
    moves, seen = moves_by_blocks(baseline, current, policy, blocks, baseline_blocks), current.seen
    return _verdict(moves, seen, policy, _too_early(moves, current, policy, needs=_more_blocks(blocks, baseline_blocks)))


def grade_counts(baseline: Confusion, current: Confusion, policy: DropPolicy, together: float | None) -> Verdict:
    """`grade_drop` where it is known how many outcomes count as one (`together`; None: neither window says).

    Where failures are rarer, F1 and precision must have fallen at the baseline's failure rate too.
    """
    if nothing := _nothing_to_compare(baseline, current, policy):
        return nothing
    moves = moves_of_counts(baseline, current, policy, together or 1.0)
    plain = _of_counts(moves, baseline, current, policy, together)
    if plain.evidence is Evidence.FALSE_ALARM or not any(move.is_past for move in moves):
        return plain
    at_rate = moves_at_baseline_rate(baseline, current, policy, together or 1.0)
    if at_rate is None:
        return plain
    found = _of_counts(at_rate, baseline, current, policy, together)
    if found.evidence is Evidence.FALSE_ALARM and raises_more_false_alarms(baseline, current, policy, together or 1.0):
        return plain
    if (found.evidence, found.severity) == (plain.evidence, plain.severity) and moves[0].drop - at_rate[0].drop < HARDLY:
        return plain
    fell = f"{moves[0].called} {moves[0].verb} {percent(abs(moves[0].drop))}"
    said = f"{fell} while {rates_words(baseline, current)}; at the baseline's failure rate {found.reason}"
    if found.evidence is Evidence.FALSE_ALARM and not _excludes_planned(at_rate[0]):
        said += ", but there are too few failures to rule out a worse model"
        return replace(found, evidence=Evidence.INSUFFICIENT, reason=said)
    return replace(found, reason=said)


def _excludes_planned(move: Move) -> bool:
    return move.interval is not None and move.interval[0] > (move.was or 0.0) * (1 - move.rule.planned)


def _of_counts(moves: Sequence[Move], baseline: Confusion, current: Confusion, policy: DropPolicy, together: float | None) -> Verdict:
    per_one = together or 1.0
    enough = _outcomes_that_show(moves[0], baseline, current, policy, per_one) if any(move.is_suspected for move in moves) else ""
    too_early = _too_early(moves, current, policy, clustering=per_one, enough=enough)
    return _verdict(moves, _seen(current, together), policy, too_early)


def _verdict(moves: Sequence[Move], seen: str, policy: DropPolicy, too_early: str) -> Verdict:
    """The worst of what fell; the metric that leads tells of all it concerns. `too_early`: why a fall is neither shown nor ruled out."""
    leading = moves[0]
    fell = [move for move in moves if move.fell]

    def verdict(evidence: Evidence, severity: Severity | None, reason: str) -> Verdict:
        return Verdict(evidence, severity, reason, leading.drop, tuple(move.rule.name for move in fell))

    moved = _moved(leading, seen, policy)
    if fell:
        severity = max((move.rule.severity(move.drop) for move in fell), key=lambda s: s.rank)
        if leading.fell and leading.rule.severity(leading.drop) is severity:
            return verdict(Evidence.REAL, severity, f"{moved}: {severity}, over {percent(leading.rule.limit(leading.drop))}")
        others = " and ".join(_past(move) for move in fell if move is not leading)
        return verdict(Evidence.REAL, severity, f"{others} ({seen}): {severity}")
    if too_early:
        return verdict(Evidence.INSUFFICIENT, None, f"{moved}{too_early}: insufficient evidence")
    if leading.is_past:
        return verdict(Evidence.FALSE_ALARM, None, f"{moved}, but the interval still holds the baseline: chance explains it")
    return verdict(Evidence.FALSE_ALARM, None, f"{moved}: within {percent(leading.rule.medium)}")


def _nothing_to_compare(baseline: Tally, current: Tally, policy: DropPolicy) -> Verdict | None:
    rules = policy.rules_for(current.metrics)
    if not rules:
        known = ", ".join(current.metrics)
        why = f"policy has no rule for a metric of a {current.task} model: add one to severity.drops.metrics ({known})"
    elif baseline.task != current.task:
        why = f"the baseline is of a {baseline.task} model and this one of a {current.task} model: nothing sound to compare with"
    elif baseline.cases < policy.min_positives or not baseline.figure(rules[0].name):
        why = f"the baseline holds only {baseline.cases} {baseline.case_words}: nothing sound to compare with"
    elif not current.cases and isinstance(current, Confusion):
        why = f"no failure in {current.n} outcomes: a quiet window says nothing about {current.metrics[rules[0].name]}"
    elif current.figure(rules[0].name) is None:
        why = f"{current.lacks}: {current.metrics[rules[0].name]} is undefined"
    else:
        return None
    return Verdict(Evidence.INSUFFICIENT, None, why)


def _outcomes_that_show(leading: Move, baseline: Confusion, current: Confusion, policy: DropPolicy, clustering: float) -> str:
    if leading.rule.name != F1 or leading.fell:
        return ""
    planned = leading.rule.planned
    detect = outcomes_to_detect(baseline, baseline.n, policy, drop=planned, clustering=clustering)
    return f", {detect} outcomes show a drop of {percent(planned)}" if detect and detect > current.n else ""


def _too_early(
    moves: Sequence[Move], current: Tally, policy: DropPolicy, *, clustering: float = 1.0, needs: str = "", enough: str = ""
) -> str:
    """Why a fall is neither shown nor ruled out; empty where it is ruled out. `needs`: what is missing to judge at all; `enough`: how much
    would show a fall."""
    if current.cases / clustering < policy.min_positives:
        return f", but only {current.cases} {current.case_words}, {policy.min_positives * clustering:.0f} needed"
    if needs:
        return needs
    suspected = " and ".join(move.called for move in moves if move.is_suspected)
    if not suspected:
        return ""
    verb = "risen" if all(move.verb == "rose" for move in moves if move.is_suspected) else "fallen"
    rate = percent(policy.false_alarm_rate)
    return f": {suspected} may have {verb}, not yet beyond chance at a false-alarm rate of {rate}{enough}"


def _more_blocks(*windows: Sequence[Tally]) -> str:
    fewest = min(len(held(blocks)) for blocks in windows)
    if fewest >= LEAST_BLOCKS:
        return ""
    return f", but in {fewest} blocks of time with an outcome, {LEAST_BLOCKS} needed to tell it from chance"


def _too_few_blocks(blocks: Sequence[Tally], baseline_blocks: Sequence[Tally], baseline_assets: Sequence[Tally]) -> str:
    """Why nobody can know how much outcomes cluster, though the platform says when they came: they came in a few batches."""
    most = max(len(held(blocks)), len(held(baseline_blocks)))
    if not baseline_blocks or most >= LEAST_BLOCKS or len(held(baseline_assets)) >= LEAST_ASSETS:
        return ""
    return f", but outcomes came in {most} batches, {LEAST_BLOCKS} needed to tell it from chance"


def grade_window(metrics: ModelMetrics, policy: DropPolicy) -> Verdict:
    """`grade_drop` of the current window against the baseline: this look alone. See `outcome_history.grade_metrics`."""
    now, before = metrics.current, metrics.baseline
    assets = [asset for of_type in before.assets_by_asset_type.values() for asset in of_type]
    return grade_drop(before.tally, now.tally, policy, blocks=now.blocks, baseline_blocks=before.blocks, baseline_assets=assets)


def _seen(counts: Confusion, clustering: float | None) -> str:
    if clustering is None:
        return f"{counts.seen}, taken as independent"
    return counts.seen if clustering <= 1 else f"{counts.seen} that come in clusters and count as {counts.n / clustering:.0f}"


def _moved(move: Move, seen: str, policy: DropPolicy) -> str:
    size = _exact(abs(move.drop), move.rule.medium, *([move.rule.high] if move.rule.high else []))
    interval = ""
    if move.interval:
        low, high = move.interval
        interval = f", {percent(policy.confidence)} interval {move.shown(low)}-{move.shown(high)}"
    return f"{move.called} {move.verb} {size} ({move.shown(move.was)} -> {move.shown(move.now)}{interval}; {seen})"


def _past(move: Move) -> str:
    over = percent(move.rule.limit(move.drop))
    return f"{move.called} {move.verb} {percent(move.drop)} ({move.shown(move.was)} -> {move.shown(move.now)}), over {over}"


def _exact(drop: float, *limits: float) -> str:
    """One decimal more where rounding would land on a limit: "9.7 %, within 10 %"."""
    rounded = percent(drop)
    return f"{drop * 100:.1f} %" if rounded in map(percent, limits) else rounded
