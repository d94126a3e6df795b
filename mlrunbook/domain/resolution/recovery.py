"""Step 4, last check: did the change work, measured on predictions made after it; and, once more of their outcomes have come, did it
hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlrunbook.domain.communication.messages import Figures
from mlrunbook.domain.evaluation.outcomes import lag_of, relative_coverage
from mlrunbook.domain.evaluation.performance import Confusion, WindowMetrics, f1_interval, percent
from mlrunbook.domain.evaluation.segments import judge_segments
from mlrunbook.domain.policy.judging import DropPolicy, RecoveryPolicy
from mlrunbook.domain.records import Record, Recorded, SpacedTime
from mlrunbook.domain.tally import Tally

LOOKS = 20  # while a recovery is watched; a fix that works must not be put aside because one of them was low by chance


@dataclass(frozen=True)
class RecoveryOutlook:
    """What follows from a look. `recovered` None: look again in `look_again_s`, unless it is time to `give_up` and ask a person."""

    recovered: bool | None
    sentence: str
    give_up: bool = False
    look_again_s: float = 60.0


@dataclass(frozen=True)
class Recovery(Recorded, key=Record.RECOVERY):
    """One look at the predictions made since the fix; the one that shows the recovery is kept. `figures` None: nothing measures it."""

    recovered: bool | None = None
    sentence: str = "resolved"
    f1: float | None = None
    f1_baseline: float | None = None
    labelled: int = 0
    figures: Figures | None = None
    waits_for_outcomes: bool = False
    label_delay_s: float | None = None


@dataclass(frozen=True)
class OutcomesOverdue(Recorded, key=Record.OUTCOMES_OVERDUE):
    """The team lead was notified, once, that outcomes are late."""

    sentence: str


@dataclass(frozen=True)
class PromotionWatch(Recorded, key=Record.PROMOTION_WATCH):
    """The promoted version was watched to the end of the window, and held."""

    at: SpacedTime
    sentence: str


@dataclass(frozen=True)
class RecoveryVerdict:
    """`recovered` is None while the outcomes do not say yet: wait for more, never take silence for recovery.

    `waits_for_outcomes`: predictions are being made, and only time brings their outcomes.
    """

    recovered: bool | None
    sentence: str
    waits_for_outcomes: bool = False


def judge_recovery(
    baseline: Confusion,
    fresh: Confusion,
    policy: RecoveryPolicy | None = None,
    *,
    window: WindowMetrics | None = None,
    usual: WindowMetrics | None = None,
) -> RecoveryVerdict:
    """Compare F1 on fresh predictions with the baseline. `window` and `usual` are the windows that the counts and the baseline come from.

    Recovered: within the tolerance. Not recovered: the interval's upper bound is still outside it, at a confidence that holds although
    the figure is looked at again and again (`LOOKS`, Bonferroni). In between, or on too few outcomes: not known yet.
    """
    policy = policy or RecoveryPolicy()
    if not baseline.f1:
        return RecoveryVerdict(None, "the baseline has no F1 to compare with: a person must judge the recovery")
    lag = f"; {lag_of(window)}" if window and lag_of(window) else ""
    covered = relative_coverage(window, usual) if window and usual else None
    if fresh.n < policy.min_labelled or fresh.positives < policy.min_positives:
        have = f"{fresh.n} of {policy.min_labelled} outcomes and {fresh.positives} of {policy.min_positives} failures"
        flows = window is not None and window.predictions >= policy.min_labelled
        return RecoveryVerdict(None, f"too early to say: {have} known since the change{lag}", waits_for_outcomes=flows)
    if covered is not None and covered < policy.min_coverage:
        need = f"{percent(policy.min_coverage)} of the usual share of outcomes is needed, {percent(covered)} is known"
        return RecoveryVerdict(None, f"too early to say: {need}{lag}", waits_for_outcomes=True)
    f1 = fresh.f1 or 0.0  # defined: there are failures
    low, high = f1_interval(fresh, policy.confidence)
    surely_under = f1_interval(fresh, 1 - (1 - policy.confidence) / LOOKS)[1]
    floor = baseline.f1 * (1 - policy.tolerance)
    words = f"F1 {f1:.2f} (interval {low:.2f}-{high:.2f}) against the baseline {baseline.f1:.2f}, on {fresh.n} fresh predictions"
    if f1 >= floor:
        return RecoveryVerdict(True, f"recovered: {words}, within {percent(policy.tolerance)}{lag}")
    if surely_under < floor:
        return RecoveryVerdict(False, f"not recovered: {words}, below {floor:.2f}{lag}")
    return RecoveryVerdict(None, f"not there yet: {words}; {floor:.2f} is needed and still possible{lag}")


def judge_types(before: Mapping[str, Tally], fresh: Mapping[str, Tally], drops: DropPolicy) -> RecoveryVerdict:
    """Whether every asset type is back: an incident of bias hides in the figure over all of them."""
    said = judge_segments(before, fresh, drops, kind="asset type")
    if said.fell:
        return RecoveryVerdict(False, f"not recovered: {said.sentence}")
    if said.fell is None:
        return RecoveryVerdict(None, f"too early to say: {said.sentence}", waits_for_outcomes=True)
    return RecoveryVerdict(True, f"recovered: {said.sentence}")


@dataclass(frozen=True)
class Confirmation:
    """What outcomes that came after the closing say. `held` None: they do not say; `ask_again`: later they may."""

    held: bool | None
    sentence: str
    ask_again: bool = False


def judge_confirmation(verdict: RecoveryVerdict, *, may_ask_again: bool) -> Confirmation:
    """The recovery measured once more on more outcomes: agreed, disagreed, or not known."""
    if verdict.recovered is True:
        return Confirmation(True, f"the recovery held: {verdict.sentence.removeprefix('recovered: ')}")
    if verdict.recovered is False:
        return Confirmation(False, f"outcomes that came later disagree: {verdict.sentence}")
    if may_ask_again:
        return Confirmation(None, f"the recovery is neither confirmed nor refuted yet: {verdict.sentence}", ask_again=True)
    return Confirmation(None, f"the recovery was never confirmed by later outcomes: {verdict.sentence}")
