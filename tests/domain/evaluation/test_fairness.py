from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.evaluation.fairness import Fairness, judge_groups
from mlrunbook.domain.evaluation.performance import Confusion
from mlrunbook.domain.policy.judging import FairnessPolicy

SOUND = Confusion(tp=160, fp=36, fn=40, tn=1764)  # F1 .81
POOR = Confusion(tp=80, fp=60, fn=120, tn=1740)  # F1 .47
FEW = Confusion(tp=9, fp=30, fn=20, tn=1941)
counts = st.builds(Confusion, tp=st.integers(0, 300), fp=st.integers(0, 300), fn=st.integers(0, 300), tn=st.integers(0, 3000))
fleets = st.dictionaries(st.sampled_from("LMHX"), counts, max_size=4)


def test_a_group_that_is_served_worse_is_named_with_its_gap() -> None:
    verdict = judge_groups({"L": SOUND, "M": SOUND, "H": POOR})
    assert verdict.verdict is Fairness.UNFAIR
    assert verdict.gap is not None
    assert verdict.gap.worse == "H"
    assert verdict.sentence == "F1 is 0.47 for H and 0.81 for L: 0.34 apart (95 % interval 0.24 to 0.43), over 0.10"


def test_groups_served_alike_are_fair() -> None:
    verdict = judge_groups({"L": SOUND, "M": SOUND})
    assert (verdict.verdict, verdict.sentence) == (Fairness.FAIR, "F1 by group is within 0.10: L 0.81, M 0.81")


def test_a_group_with_under_30_known_failures_has_no_figures_and_keeps_the_rest_from_being_called_fair() -> None:
    verdict = judge_groups({"L": SOUND, "M": SOUND, "H": FEW})
    assert verdict.verdict is Fairness.INSUFFICIENT
    assert verdict.sentence.endswith("not judged: H (29 known failures)")
    assert verdict.groups["H"].f1 is None
    assert verdict.groups["L"].f1_interval is not None
    assert judge_groups({"L": SOUND, "H": FEW}).verdict is Fairness.INSUFFICIENT
    assert judge_groups({}).verdict is Fairness.INSUFFICIENT


def test_a_group_with_few_failures_does_not_hide_the_one_that_is_served_worse() -> None:
    assert judge_groups({"L": SOUND, "M": POOR, "H": FEW}).verdict is Fairness.UNFAIR


def test_a_wide_gap_that_chance_may_explain_is_insufficient_not_fair() -> None:
    verdict = judge_groups({"L": Confusion(tp=25, fp=5, fn=7, tn=200), "H": Confusion(tp=20, fp=6, fn=12, tn=200)})
    assert verdict.verdict is Fairness.INSUFFICIENT
    assert "but chance may explain it" in verdict.sentence


def test_a_gap_that_the_baseline_had_already_is_not_held_against_the_model() -> None:
    rare = Confusion(tp=136, fp=60, fn=64, tn=9740)  # F1 .69: fewer failures among more assets, so more false alarms for each
    groups = {"L": SOUND, "H": rare}
    assert judge_groups(groups).verdict is Fairness.UNFAIR
    assert judge_groups(groups, baseline=groups).verdict is Fairness.FAIR
    worse = judge_groups(groups | {"H": POOR}, baseline=groups)
    assert worse.verdict is Fairness.UNFAIR
    assert "0.22 further apart than in the baseline" in worse.sentence
    assert judge_groups(groups, baseline={"L": SOUND}).verdict is Fairness.INSUFFICIENT


@given(fleets)
def test_the_order_of_groups_changes_nothing_and_no_group_is_judged_on_few_failures(groups: Mapping[str, Confusion]) -> None:
    verdict = judge_groups(groups)
    assert judge_groups(dict(reversed(list(groups.items())))) == verdict
    for name, figures in verdict.groups.items():
        assert figures.is_judged == (groups[name].positives >= 30)
        for value, interval in ((figures.f1, figures.f1_interval), (figures.recall, figures.recall_interval)):
            assert value is None or (interval is not None and interval[0] <= value <= interval[1])
    if verdict.gap:
        assert verdict.gap.low <= verdict.gap.size <= verdict.gap.high
    if verdict.verdict is Fairness.FAIR:
        assert all(f.is_judged for f in verdict.groups.values())


def _drawn(rng: np.random.Generator, positives: int, *, recall: float = 0.78, precision: float = 0.82) -> Confusion:
    found = int(rng.binomial(positives, recall))
    false = int(rng.poisson(positives * recall * (1 - precision) / precision))
    return Confusion(tp=found, fp=false, fn=positives - found, tn=positives * 9)


@pytest.mark.parametrize("positives", [(30, 30, 30), (300, 100, 35), (40, 40, 40, 40, 40, 40), (1000, 500, 200)])
@pytest.mark.parametrize("with_baseline", [False, True])
def test_a_fair_model_is_called_unfair_in_at_most_5_percent_of_windows(positives: tuple[int, ...], with_baseline: bool) -> None:
    rng, runs = np.random.default_rng(7), 400

    def window(times: int = 1) -> dict[str, Confusion]:
        return {f"group {i}": _drawn(rng, n * times) for i, n in enumerate(positives)}

    verdicts = [judge_groups(window(), baseline=window(2) if with_baseline else None).verdict for _ in range(runs)]
    assert verdicts.count(Fairness.UNFAIR) <= 0.05 * runs


def test_a_recall_that_halved_for_one_group_is_found_from_100_failures_on() -> None:
    rng, runs = np.random.default_rng(8), 200
    found = [
        judge_groups({"L": _drawn(rng, 300), "M": _drawn(rng, 200), "H": _drawn(rng, 100, recall=0.39)}).verdict for _ in range(runs)
    ].count(Fairness.UNFAIR)
    assert found >= 0.95 * runs


def test_the_figures_are_those_of_fairlearn() -> None:
    from fairlearn.metrics import MetricFrame, selection_rate
    from sklearn.metrics import f1_score, precision_score, recall_score

    rng = np.random.default_rng(9)
    group = rng.choice(["L", "M", "H"], 4000, p=[0.6, 0.3, 0.1])
    failed = rng.random(4000) < 0.15
    flagged = np.where(rng.random(4000) < np.where(group == "H", 0.3, 0.1), ~failed, failed)
    frame = MetricFrame(
        metrics={"f1": f1_score, "precision": precision_score, "recall": recall_score, "flagged_share": selection_rate},
        y_true=failed,
        y_pred=flagged,
        sensitive_features=group,
    )
    cells = {
        g: Confusion(
            tp=int((failed & flagged)[group == g].sum()),
            fp=int((~failed & flagged)[group == g].sum()),
            fn=int((failed & ~flagged)[group == g].sum()),
            tn=int((~failed & ~flagged)[group == g].sum()),
        )
        for g in "LMH"
    }
    verdict = judge_groups(cells, FairnessPolicy())
    for g in "LMH":
        for metric in ("f1", "precision", "recall", "flagged_share"):
            assert getattr(verdict.groups[g], metric) == pytest.approx(frame.by_group[metric][g])
    assert verdict.gap is not None
    assert verdict.gap.size == pytest.approx(frame.difference()["f1"])
