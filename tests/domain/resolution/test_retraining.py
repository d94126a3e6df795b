"""Which rows a retraining learns from, and what its version is called."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.cause import Cause
from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.observed import Prediction
from mlrunbook.domain.policy.policy import Retraining
from mlrunbook.domain.resolution.retraining import change_point, check_window, next_version, onset_of, training_window

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
POLICY = Retraining()


def log(
    n: int, *, failures: float = 0.04, wrong: float = 0.02, wrong_after: float | None = None, change: int = 0, seed: int = 1
) -> list[Prediction]:
    """One prediction a second up to now; from `change` on another share is wrong."""
    rng = random.Random(seed)
    rows = []
    for i in range(n):
        failed = rng.random() < failures
        share = wrong if wrong_after is None or i < change else wrong_after
        label = failed is not (rng.random() < share)
        at = NOW - timedelta(seconds=n - i)
        rows.append(Prediction(i, at, f"asset_{i}", "L", {}, float(label), label, "v1", 0.5, 1.0, outcome=failed))
    return rows


@pytest.mark.parametrize("change", [3000, 5000, 8000])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_planted_onset_is_found(change: int, seed: int) -> None:
    rows = log(10_000, wrong=0.02, wrong_after=0.08, change=change, seed=seed)
    found = onset_of(rows)
    assert found is not None
    assert abs((found - rows[change].at).total_seconds()) < 300


def test_steady_errors_have_no_onset() -> None:
    assert sum(onset_of(log(4000, seed=s)) is not None for s in range(40)) <= 2


@given(st.lists(st.floats(0, 1, allow_nan=False), max_size=50))
def test_a_change_point_lies_inside(values: list[float]) -> None:
    at = change_point(values)
    assert at is None or 0 < at < len(values)


def test_the_newest_quarter_is_held_out() -> None:
    rows = log(8000)
    window = training_window(list(reversed(rows)), NOW, POLICY)
    assert window is not None
    assert (window.start, window.end) == (rows[0].at, rows[6000].at)


def test_more_is_held_out_where_the_share_holds_too_few_failures() -> None:
    rows = log(8000, failures=0.02)
    window = training_window(rows, NOW, Retraining(holdout_share=0.1))
    assert window is not None
    assert window.end < rows[7200].at
    assert sum(bool(p.outcome) for p in rows if p.at >= window.end) == POLICY.min_positives


def test_a_concept_drift_trains_since_its_onset() -> None:
    rows = log(16_000, wrong_after=0.10, change=6000)
    window = training_window(rows, NOW, POLICY, cause=Cause.CONCEPT_DRIFT)
    assert window is not None
    assert window.start == window.onset
    assert abs((window.start - rows[6000].at).total_seconds()) < 300
    assert training_window(rows, NOW, POLICY, cause=Cause.DATA_DRIFT).start == rows[0].at  # type: ignore[union-attr]


def test_a_drift_too_fresh_to_learn_from_looks_back() -> None:
    rows = log(16_000, wrong_after=0.30, change=15_000)
    window = training_window(rows, NOW, POLICY, cause=Cause.CONCEPT_DRIFT)
    assert window is not None
    assert (window.onset, window.start) == (None, rows[0].at)


def test_a_new_asset_type_is_both_learned_and_held_out() -> None:
    rows = [p if i < 8000 or i % 4 else Prediction(**(vars(p) | {"asset_type": "X"})) for i, p in enumerate(log(16_000))]
    window = training_window(rows, NOW, POLICY, cause=Cause.NEW_SEGMENT, known_types=("L",))
    assert window is not None
    new = [p.at for p in rows if p.asset_type == "X"]
    assert sum(at < window.end for at in new) > 2 * sum(at >= window.end for at in new) > 0


def test_too_few_failures_give_no_window() -> None:
    assert training_window([], NOW, POLICY) is None
    assert training_window(log(1000), NOW, POLICY) is None
    assert training_window([Prediction(**(vars(p) | {"at": p.at - timedelta(days=90)})) for p in log(8000)], NOW, POLICY) is None


@pytest.mark.parametrize(
    ("existing", "expected"),
    [
        (["v1.5.0", "v2.0.0"], "v2.1.0"),
        (["v2.0.0", "v1.9.3"], "v2.1.0"),
        (["v2.9.0", "v2.10.0"], "v2.11.0"),
        (["1.0.0"], "1.1.0"),
        (["v2.0.0-rc1", "canary"], "v2.1.0"),
        ([], "v0.1.0"),
    ],
)
def test_the_next_version_is_the_next_minor_of_the_highest(existing: list[str], expected: str) -> None:
    assert next_version(existing) == expected


@given(st.lists(st.from_regex(r"v?[0-9]{1,2}\.[0-9]{1,2}(\.[0-9])?", fullmatch=True)))
def test_the_next_version_never_exists(existing: list[str]) -> None:
    assert next_version(existing) not in existing


def test_a_wanted_version_that_exists_is_refused() -> None:
    assert next_version(["v1.5.0"], "v3.0.0") == "v3.0.0"
    with pytest.raises(Invalid, match="never overwritten"):
        next_version(["v1.5.0"], "v1.5.0")


@pytest.mark.parametrize(("start", "end", "why"), [(2, 1, "swap"), (1, 1, "swap"), (0, -1, "swap"), (1, 99, "future")])
def test_a_window_that_cannot_be_trained_on_is_refused(start: int, end: int, why: str) -> None:
    with pytest.raises(Invalid, match=why):
        check_window(NOW - timedelta(days=3 - start), NOW - timedelta(days=3 - end), NOW)
