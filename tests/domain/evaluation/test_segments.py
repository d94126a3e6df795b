"""Overall figures hide segments; many segments make false alarms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrunbook.domain.evaluation.performance import Confusion, Evidence, grade_drop
from mlrunbook.domain.evaluation.segments import judge_segments
from mlrunbook.domain.policy.judging import DropPolicy

BASELINE = {"L": Confusion(480, 105, 135, 17_000), "M": Confusion(240, 53, 67, 8500), "H": Confusion(80, 18, 22, 2900)}
NOW = {"L": Confusion(240, 52, 68, 8500), "M": Confusion(75, 40, 75, 4200), "H": Confusion(40, 9, 11, 1500)}
POLICY = DropPolicy()


def total(counts: dict[str, Confusion]) -> Confusion:
    return sum(counts.values(), Confusion())


def test_a_segment_that_fell_is_named_while_overall_f1_hides_it() -> None:
    assert grade_drop(total(BASELINE), total(NOW), POLICY).evidence is Evidence.FALSE_ALARM
    verdict = judge_segments(BASELINE, NOW, POLICY, kind="asset type")
    assert [s.name for s in verdict.fallen] == ["M"]
    assert verdict.sentence.startswith("affected: M (F1 fell 29 %")
    assert "150 failures in 4390 outcomes" in verdict.sentence
    assert verdict.sentence.endswith("adjusted p < 0.001)")


def test_a_segment_without_failures_is_not_applicable_and_one_with_few_is_not_judged() -> None:
    verdict = judge_segments(BASELINE, {"L": NOW["L"], "M": Confusion(tp=5, fn=2, tn=90), "H": Confusion(fp=3, tn=97)}, POLICY)
    said = {s.name: s for s in verdict.segments}
    assert (said["H"].verdict, said["H"].adjusted_p) == (None, None)
    assert said["H"].sentence == "H: not applicable, 0 failures in 100 outcomes"
    assert said["M"].verdict is not None
    assert said["M"].verdict.evidence is Evidence.INSUFFICIENT
    assert (verdict.fell, verdict.sentence) == (None, "too few known failures to judge M")


def test_when_every_segment_holds_the_sentence_names_them() -> None:
    verdict = judge_segments(BASELINE, {"L": NOW["L"], "H": Confusion(fp=3, tn=97)}, POLICY, kind="asset type")
    assert (verdict.fell, verdict.sentence) == (False, "no asset type is worse than its baseline (L)")


def test_nothing_to_judge_is_not_known_rather_than_fine() -> None:
    assert judge_segments(BASELINE, {}, POLICY).fell is None
    assert judge_segments({}, NOW, POLICY).fell is None


def test_the_more_segments_are_asked_the_more_evidence_one_must_show() -> None:
    suspect = Confusion(tp=52, fp=23, fn=37, tn=2400)  # just beyond chance by itself
    base = Confusion(240, 53, 67, 8500)
    assert grade_drop(base, suspect, POLICY).is_real
    alone = judge_segments({"a": base}, {"a": suspect}, POLICY)
    among = {"a": suspect} | {f"fine {i}": Confusion(240, 53, 67, 8500) for i in range(9)}
    many = judge_segments(dict.fromkeys(among, base), among, POLICY)
    assert (alone.fell, many.fell) == (True, None)
    assert many.segments[0].verdict is not None
    assert many.segments[0].verdict.evidence is Evidence.INSUFFICIENT


def test_adjusted_p_values_are_those_of_benjamini_and_hochberg() -> None:
    now = {"L": Confusion(176, 74, 95, 8500), "M": Confusion(88, 40, 62, 4200), "H": Confusion(29, 25, 31, 1500)}
    alone = {name: judge_segments({name: BASELINE[name]}, {name: now[name]}, POLICY).segments[0].adjusted_p or 1.0 for name in now}
    first, second, third = sorted(alone, key=lambda name: alone[name])
    together = {s.name: s.adjusted_p for s in judge_segments(BASELINE, now, POLICY).segments}
    assert alone[first] < alone[second] < alone[third] < 1
    assert together[first] == pytest.approx(min(alone[first] * 3, alone[second] * 3 / 2, alone[third]))
    assert together[second] == pytest.approx(min(alone[second] * 3 / 2, alone[third]))


def test_where_nothing_fell_hardly_any_fleet_has_a_segment_called_so() -> None:
    rng = np.random.default_rng(4)
    cells = [0.026, 0.0057, 0.00733, 0.96097]
    called = 0
    for _ in range(40):
        before, now = ({f"type {i}": Confusion(*map(int, rng.multinomial(n, cells))) for i in range(4)} for n in (8000, 1500))
        called += bool(judge_segments(before, now, POLICY).fallen)
    assert called <= 3


@settings(max_examples=6, deadline=None)
@given(st.permutations(["L", "M", "H"]))
def test_the_order_of_the_segments_changes_nothing(order: list[str]) -> None:
    assert judge_segments(BASELINE, {name: NOW[name] for name in order}, POLICY) == judge_segments(BASELINE, NOW, POLICY)
