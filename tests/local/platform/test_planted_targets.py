"""Planted rollback targets with really trained models: the bad are refused, the sound are taken. `make bench` has more of them."""

from __future__ import annotations

from benchmarks.candidates import pool, run


def test_bad_targets_are_refused_and_good_ones_taken() -> None:
    result = run(pool(8000, sound=2, truth_rows=20_000), 24)
    assert result["bad_refused"] >= 0.95
    assert result["good_not_taken"] <= 0.05
    assert result["chose_sound"] >= 0.95
