"""Step 4, last check: did the change work, measured on predictions made after it."""

from __future__ import annotations

from dataclasses import dataclass

from mlrunbook.domain.performance import Confusion, Count, Share, f1_interval, percent


@dataclass(frozen=True)
class RecoveryPolicy:
    """F1 counts as recovered within `tolerance` (relative) of the baseline, on at least this many known outcomes and failures."""

    min_labelled: Count = 100
    min_positives: Count = 30
    tolerance: Share = 0.05
    confidence: Share = 0.95


@dataclass(frozen=True)
class RecoveryVerdict:
    """`recovered` is None while the outcomes do not say yet: wait for more, never take silence for recovery."""

    recovered: bool | None
    sentence: str


def judge_recovery(baseline: Confusion, fresh: Confusion, policy: RecoveryPolicy | None = None) -> RecoveryVerdict:
    """Compare F1 on fresh predictions with the baseline.

    Recovered: within the tolerance. Not recovered: the interval's upper bound is still outside it. In between, or on too few
    outcomes: not known yet.
    """
    policy = policy or RecoveryPolicy()
    if not baseline.f1:
        return RecoveryVerdict(None, "the baseline has no F1 to compare with: a person must judge the recovery")
    if fresh.n < policy.min_labelled or fresh.positives < policy.min_positives:
        have = f"{fresh.n} of {policy.min_labelled} outcomes and {fresh.positives} of {policy.min_positives} failures"
        return RecoveryVerdict(None, f"too early to say: {have} known since the change")
    f1 = fresh.f1 or 0.0  # defined: there are failures
    low, high = f1_interval(fresh, policy.confidence)
    floor = baseline.f1 * (1 - policy.tolerance)
    words = f"F1 {f1:.2f} (interval {low:.2f}-{high:.2f}) against the baseline {baseline.f1:.2f}, on {fresh.n} fresh predictions"
    if f1 >= floor:
        return RecoveryVerdict(True, f"recovered: {words}, within {percent(policy.tolerance)}")
    if high < floor:
        return RecoveryVerdict(False, f"not recovered: {words}, below {floor:.2f}")
    return RecoveryVerdict(None, f"not there yet: {words}; {floor:.2f} is needed and still possible")
