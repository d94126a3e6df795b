"""What policy a model like this one needs, from its own history: windows by its pace of outcomes, and a threshold only where it is surely
better on rows that it was not chosen on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import ceil
from typing import Any

from mlrunbook.domain.backtest.result import LogFacts, Suggestions
from mlrunbook.domain.evaluation.maturity import duration
from mlrunbook.domain.evaluation.outcome_window import TIMES_ENOUGH
from mlrunbook.domain.policy.judging import SeverityPolicy

BINS = 1000  # thresholds that are tried
PARTS = 40  # of the log in time; the first half chooses, the second checks
MOST_DAYS = 365
RESAMPLES = 2000
SURELY = 0.025
LEAST_GAIN = 0.02
LEAST_PARTS = 5
MOST_FLAGGED = 1.5  # times what fails: a threshold that flags nearly all may have the best F1, and is no use
LEAST_FAILURES = 100  # in each half


@dataclass(frozen=True, eq=False)
class Scores:
    """Mature outcomes by part of the log (oldest first), tenth of a percent of the score, and outcome: an array `PARTS` x `BINS` x 2; and
    `flagged`, the counts of what was flagged in fact, `PARTS` x 4 (tp, fp, fn, tn). Parts with called falls are left out."""

    held: Any
    flagged: Any


def suggest(model: str, facts: LogFacts, scores: Scores | None, policy: SeverityPolicy) -> Suggestions:
    window, said = _window(facts, policy)
    threshold, why = better_threshold(scores) if scores is not None else (None, "the log holds no score: no threshold can be suggested")
    lines = ["models:", f"  {json.dumps(model)}:", "    severity:"]
    if window:
        lines.append("      window: { " + ", ".join(f"{key}: {value}" for key, value in window.items()) + " }")
    else:
        lines = []
        said = said or ("the policy in force fits this log; nothing to change",)
    return Suggestions("\n".join(lines), (*said, why), threshold)


def _window(facts: LogFacts, policy: SeverityPolicy) -> tuple[dict[str, int], tuple[str, ...]]:
    usual, days = policy.window, max((facts.last - facts.first).total_seconds() / 86_400, 1e-9)
    positives = max(usual.min_positives, _round(usual.min_positives * min(facts.rows_as_one, 20.0)))
    if facts.failures < usual.min_positives:
        return {}, (f"{facts.failures} failures are too few to size windows: {usual.min_positives} are needed",)
    outcomes = max(usual.min_outcomes, _round(positives / facts.base_rate))
    takes = TIMES_ENOUGH * max(outcomes / (facts.judged / days), positives / (facts.failures / days))
    most_days = min(max(ceil(takes), 1), MOST_DAYS)
    found, said = {}, []
    as_one = f"{facts.rows_as_one:.1f} correlated outcomes say as much as one"
    if positives != usual.min_positives:
        said.append(f"min_positives {positives}: {usual.min_positives} independent failures, as {as_one}")
        found["min_positives"] = positives
    if outcomes != usual.min_outcomes:
        said.append(f"min_outcomes {outcomes:,}: {positives} failures need as many outcomes, {facts.base_rate:.2%} of which fail")
        found["min_outcomes"] = outcomes
    if most_days > usual.most_days:
        pace = f"{facts.judged / days:,.0f} outcomes and {facts.failures / days:.3g} failures come a day"
        said.append(f"most_days {most_days}: {TIMES_ENOUGH} times that many take {duration(takes * 86_400)}, as {pace}")
        found["most_days"] = most_days
    return found, tuple(said)


def _round(value: float) -> int:
    """Two digits that matter, upwards."""
    step = int(10 ** max(len(str(int(value))) - 2, 0))
    return int(ceil(value / step) * step)


def better_threshold(scores: Scores) -> tuple[float | None, str]:
    """Chosen for the best F1 on the first half, compared on the second by resampled parts of time."""
    import numpy as np

    half = len(scores.held) // 2
    if half < LEAST_PARTS:
        return None, "threshold: too little of the log is free of called falls to choose one"
    above = np.cumsum(scores.held[:, ::-1], axis=1)[:, ::-1]  # what each threshold would have flagged
    failures = scores.held[:, :, 1].sum(axis=1)
    if min(failures[:half].sum(), failures[half:].sum()) < LEAST_FAILURES:
        return None, f"threshold: {int(failures.sum())} failures are too few to choose one and to check it"
    early, flagged_share = above[:half].sum(axis=0), scores.flagged[:half, :2].sum() / scores.flagged[:half].sum()
    share, failing = early.sum(axis=1) / scores.flagged[:half].sum(), failures[:half].sum() / scores.flagged[:half].sum()
    sensible = share <= max(flagged_share, MOST_FLAGGED * failing)
    best = int(np.argmax(np.where(sensible, _f1(early, failures[:half].sum()), -1.0)))
    chosen = round(best / BINS, 4)
    if not 0 < chosen < 1:
        return None, "threshold: none between 0 and 1 is better than the one in force"
    rng = np.random.default_rng(0)
    drawn = rng.integers(half, len(failures), size=(RESAMPLES, len(failures) - half))
    of = failures[drawn].sum(axis=1)
    is_, flagged = scores.flagged[drawn].sum(axis=1), above[drawn, best].sum(axis=1)
    before = 2 * is_[:, 0] / np.maximum(2 * is_[:, 0] + is_[:, 1] + is_[:, 2], 1)
    gain = _f1(flagged, of) - before
    was, now = float(before.mean()), float((before + gain).mean())
    checked = f"F1 {was:.2f} -> {now:.2f} on the later half, which it was not chosen on"
    failing_later = failures[half:].sum() / scores.flagged[half:].sum()
    if now <= 2 * failing_later / (1 + failing_later):
        return None, f"threshold: at none is F1 above that of flagging every asset ({checked}): look at the scores"
    if float(np.quantile(gain, SURELY)) <= 0 or float(gain.mean()) < LEAST_GAIN:
        return None, f"threshold: {chosen:g}, the best of the first half, is not clearly better ({checked}): keep yours"
    return chosen, f"threshold {chosen:g} would have been better: {checked}; set it in the model's own configuration, not in the policy"


def _f1(flagged: Any, failures: Any) -> Any:
    """`flagged`: [..., 2], rightly quiet or failed last."""
    import numpy as np

    return 2 * flagged[..., 1] / np.maximum(flagged[..., 0] + flagged[..., 1] + failures, 1)
