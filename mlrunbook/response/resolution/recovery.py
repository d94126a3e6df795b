"""One look at the predictions made since the fix."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from mlrunbook.domain.errors import NotFound
from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics
from mlrunbook.domain.evaluation.rewritten import judge_rewrites
from mlrunbook.domain.incident import IncidentType
from mlrunbook.domain.observed import Missing
from mlrunbook.domain.resolution.fix import HumanResolution
from mlrunbook.domain.resolution.recovery import Recovery, RecoveryVerdict, judge_recovery, judge_types
from mlrunbook.domain.tally import as_binary
from mlrunbook.response.detection.triage import figures_of
from mlrunbook.response.measurement import metrics
from mlrunbook.response.resolution import serving_recovery, threshold
from mlrunbook.response.run import Run
from mlrunbook.response.tried import tried


def judge(run: Run, since: datetime) -> Recovery:
    """Has the model recovered? A person's word counts where nothing measures it. What cannot be measured, for whatever reason, is not
    known yet."""
    found = tried("the check of the recovery", lambda: _judged(run, since))
    return Recovery(None, f"the recovery cannot be measured: {found.reason}") if isinstance(found, Missing) else found


def _judged(run: Run, since: datetime) -> Recovery:
    by_word, comes_back = run.recall(HumanResolution), threshold.coming_back(run)
    try:
        seen = run.world.platform.metrics(run.incident().model, since=since)
        if comes_back is not None:  # at the raised one a sound model looks worse than it is
            seen = threshold.counted_at(run, seen, comes_back)
    except NotFound as error:
        if by_word:
            return Recovery(True, f"resolved on the word of {by_word.by}: nothing measures {run.incident().model} ({error})")
        return Recovery(None, str(error))
    if by_word and not seen.baseline.confusion.f1:
        return Recovery(True, f"resolved on the word of {by_word.by}: there is no baseline to measure against")
    before = as_binary(metrics.baseline(run) or seen.baseline.tally)
    judged = _compared(run, before, seen)
    recovered, sentence = judged.recovered, judged.sentence
    if comes_back is not None:
        sentence += f", at the threshold {comes_back:g} that comes back"
    if recovered is not False and (served := serving_recovery.recovered(run, since)):
        recovered, sentence = (recovered, f"{sentence}; {served[1]}") if served[0] else served
    fresh = seen.current
    return Recovery(
        recovered,
        sentence,
        f1=fresh.confusion.f1,
        f1_baseline=before.f1,
        labelled=fresh.confusion.n,
        figures=replace(figures_of(seen, run.world.policy.costs), f1_baseline=before.f1),
        waits_for_outcomes=judged.waits_for_outcomes,
        label_delay_s=fresh.label_delay_s if fresh.label_delay_s is not None else seen.baseline.label_delay_s,
    )


def _compared(run: Run, before: Confusion, seen: ModelMetrics) -> RecoveryVerdict:
    """Over all; in an incident of bias then on every asset type."""
    policy = run.policy
    rewritten = judge_rewrites(seen, policy.severity.outcomes)
    if rewritten.beyond:
        return RecoveryVerdict(None, f"the recovery cannot be measured: {rewritten.sentence}")
    judged = judge_recovery(before, seen.current.confusion, policy.recovery, window=seen.current, usual=seen.baseline)
    if judged.recovered and run.incident().type is IncidentType.BIAS_FAIRNESS:
        types_before = metrics.baseline_by_type(run) or seen.baseline.by_asset_type
        return judge_types(types_before, seen.current.by_asset_type, policy.severity.drops)
    return judged
