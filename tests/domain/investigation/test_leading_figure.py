"""More failures are caught at the price of precision, and F1 rises: whether the model should be retrained is a person's question."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mlrunbook.domain.observed import Prediction
from mlrunbook.domain.resolution.paths import Path
from tests.domain.investigation.worlds import Fleet, looked_into


def labelled(rows: list[Prediction], recall: float, false: float, seed: int) -> list[Prediction]:
    """Labelled by chance, so that no threshold on the score brings it back."""
    rng = np.random.default_rng(seed)
    return [replace(row, label=bool(rng.random() < (recall if row.outcome else false))) for row in rows]


@pytest.mark.parametrize("seed", [1, 2])
def test_a_fall_of_precision_alone_while_f1_rose_is_not_retrained_on(seed: int) -> None:
    before = labelled(Fleet(9000, seed=seed).log(), 0.4, 0.002, seed)
    now = labelled(Fleet(9000, first=9000, seed=seed + 10).log(), 0.9, 0.08, seed)
    looked = looked_into(before, now)
    assert looked.facts.verdict is not None
    assert looked.facts.verdict.is_real
    assert looked.facts.verdict.drop is not None
    assert looked.facts.verdict.drop < 0
    assert not looked.facts.leading_fell
    assert looked.diagnosis.path is not Path.RETRAIN


@pytest.mark.parametrize("seed", [1, 2])
def test_a_fall_of_the_figure_that_leads_still_is(seed: int) -> None:
    before = labelled(Fleet(9000, seed=seed).log(), 0.8, 0.002, seed)
    now = labelled(Fleet(9000, first=9000, seed=seed + 10).log(), 0.5, 0.03, seed)
    assert looked_into(before, now).facts.leading_fell
