"""Path C: is what a candidate was trained on fit to learn from? A model that learns broken rows is wrong again once they are whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from mlrunbook.domain.evaluation.performance import Confusion
from mlrunbook.domain.evaluation.prediction_rows import confusion_of
from mlrunbook.domain.evaluation.segments import judge_segments
from mlrunbook.domain.evaluation.version_comparison import TRAINING_DATA, Check
from mlrunbook.domain.investigation.inputs.faults import input_faults
from mlrunbook.domain.investigation.logged_threshold import logged_threshold
from mlrunbook.domain.observed import Prediction
from mlrunbook.domain.policy.judging import DropPolicy

LEAST_ROWS = 100
LEAST_PASSED = 0.01  # of the rows: what has passed explains no fall, but a model learns it all the same


def judge_training_rows(
    reference: Sequence[Prediction], rows: Sequence[Prediction], *, version: str, end: datetime, drops: DropPolicy, asked: bool = False
) -> Check:
    """`rows`: logged in the training window that ends at `end`; `reference`: a sample of the baseline's. Failed where they carry a broken
    feature, or a threshold of `version` that slipped and was not put back: rows before or after that are to be learned from. An asset type
    that fell alone fails too, unless a person has `asked` for this window: they may have enough of its outcomes to learn it.
    """
    if min(len(reference), len(rows)) < LEAST_ROWS:
        return Check(TRAINING_DATA, None, f"only {len(rows)} logged rows of the training window: too few to say whether any is broken")
    if faults := input_faults(reference, rows, least_passed=LEAST_PASSED):
        broken = "; ".join(fault.sentence for fault in faults[:3])
        return Check(TRAINING_DATA, False, f"trained on broken rows: {broken}; train on rows from before or after that")
    if slip := logged_threshold(reference, rows, version=version, until=end):
        return Check(TRAINING_DATA, False, f"trained while the threshold had slipped: {slip.sentence}; put it back first (path D)")
    fallen = _fallen_alone(reference, rows, drops)
    if fallen:
        words = f"trained while asset type {', '.join(fallen)} alone was wrong: find out why before a model learns it"
        return Check(TRAINING_DATA, None if asked else False, words)
    return Check(TRAINING_DATA, True, f"no broken row found in {len(rows)} of the training window")


def _fallen_alone(reference: Sequence[Prediction], rows: Sequence[Prediction], drops: DropPolicy) -> list[str]:
    """The types that fell, where another one was judged and did not."""
    verdict = judge_segments(_by_type(reference), _by_type(rows), drops, kind="asset type")
    fallen = [s.name for s in verdict.fallen]
    return fallen if any(s.is_judged and not s.fell for s in verdict.segments) else []


def _by_type(rows: Sequence[Prediction]) -> Mapping[str, Confusion]:
    names = sorted({p.asset_type for p in rows})
    return {name: confusion_of(p for p in rows if p.asset_type == name) for name in names}
