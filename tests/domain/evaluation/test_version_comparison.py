"""Which version may serve next."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.evaluation.paired import compare, difference, mcnemar
from mlrunbook.domain.evaluation.performance import Confusion
from mlrunbook.domain.evaluation.rollback_target import Judged, TargetChoice, choose_target
from mlrunbook.domain.evaluation.version_comparison import (
    Decision,
    ShadowVerdict,
    brier_score,
    calibration_error,
    compare_shadow,
    promotion_fell,
    validate,
)
from mlrunbook.domain.observed import ModelVersion, Prediction, Replayed, VersionReplay
from mlrunbook.domain.policy.judging import DropPolicy
from mlrunbook.domain.policy.policy import Retraining

T0 = datetime(2026, 3, 2, tzinfo=UTC)
DROPS, RETRAINING = DropPolicy(), Retraining()


def row(i: int, failed: bool, *, type_: str = "L", score: float = 0.1, **more: object) -> Prediction:
    at = T0 + timedelta(seconds=i)
    return Prediction(i, at, f"asset_{i}", type_, {}, score, score >= 0.5, "v2.0.0", 0.5, 1.0, outcome=failed, **more)  # type: ignore[arg-type]


def scores_of(
    rows: list[Prediction], *, recall: float, false_alarms: float, seed: int, unlike: str = "", recall_there: float = 0.0
) -> tuple[float, ...]:
    """A model that catches this share of failures (another share on asset type `unlike`) and raises this share of false alarms."""
    rng = random.Random(seed)

    def one(p: Prediction) -> float:
        share = (recall_there if p.asset_type == unlike else recall) if p.outcome else false_alarms
        return 0.9 if rng.random() < share else 0.02

    return tuple(one(p) for p in rows)


@pytest.fixture(scope="module")
def rows() -> list[Prediction]:
    rng = random.Random(7)
    return [row(i, rng.random() < 0.04, type_="LLLLLLMMMH"[i % 10]) for i in range(4000)]


def replayed(rows: list[Prediction], **versions: tuple[float, ...] | str) -> Replayed:
    made = [
        VersionReplay(name.replace("_", "."), () if isinstance(s, str) else s, s if isinstance(s, str) else None, 400_000, 2.0)
        for name, s in versions.items()
    ]
    return Replayed(tuple(rows), tuple(made))


def choose(replay: Replayed, **more: object) -> TargetChoice:
    return choose_target(replay, **({"current": "v2.0.0", "threshold": 0.5, "baseline_f1": 0.82, "policy": DROPS} | more))  # type: ignore[arg-type]


def version(
    name: str, *, trained_to: datetime = T0, types: tuple[str, ...] | None = ("L", "M", "H"), features: tuple[str, ...] = ("torque_nm",)
) -> ModelVersion:
    return ModelVersion(name, T0, T0 - timedelta(days=90), trained_to, features, 0.5, types)


BAD, SOUND = {"recall": 0.4, "false_alarms": 0.02}, {"recall": 0.85, "false_alarms": 0.006}


def test_the_version_that_wins_on_the_same_requests_is_the_target(rows: list[Prediction]) -> None:
    replay = replayed(
        rows,
        v2_0_0=scores_of(rows, **BAD, seed=1),
        v1_5_0=scores_of(rows, **SOUND, seed=2),
        v1_4_0=scores_of(rows, recall=0.98, false_alarms=0.001, seed=3),
    )
    choice = choose(replay)
    assert choice.target == "v1.4.0"
    assert [(v.version, v.judged) for v in choice.ranking] == [("v1.4.0", Judged.ACCEPTED), ("v1.5.0", Judged.ACCEPTED)]
    assert choice.ranking[0].low < choice.ranking[0].f1 < choice.ranking[0].high  # type: ignore[operator]


def test_a_version_that_cannot_score_the_requests_is_refused_with_the_reason(rows: list[Prediction]) -> None:
    choice = choose(replayed(rows, v2_0_0=scores_of(rows, **BAD, seed=1), v1_5_0="the artefact was changed after it was saved"))
    assert choice.target is None
    assert not choice.not_enough_evidence
    assert "changed after it was saved" in choice.sentence


def test_a_version_no_better_than_the_bad_one_is_refused(rows: list[Prediction]) -> None:
    choice = choose(replayed(rows, v2_0_0=scores_of(rows, **BAD, seed=1), v1_5_0=scores_of(rows, recall=0.2, false_alarms=0.02, seed=2)))
    assert choice.ranking[0].judged is Judged.REFUSED
    assert "no better" in choice.sentence


def test_a_version_that_would_not_restore_service_is_refused(rows: list[Prediction]) -> None:
    worst = scores_of(rows, recall=0.05, false_alarms=0.05, seed=1)
    choice = choose(replayed(rows, v2_0_0=worst, v1_5_0=scores_of(rows, **BAD, seed=2)))
    assert choice.ranking[0].judged is Judged.REFUSED
    assert "would not restore service" in choice.sentence
    assert choose(replayed(rows, v2_0_0=worst, v1_5_0=scores_of(rows, **BAD, seed=2)), baseline_f1=None).target == "v1.5.0"


def test_a_version_worse_on_one_asset_type_is_refused_though_better_over_all(rows: list[Prediction]) -> None:
    current = scores_of(rows, recall=0.3, false_alarms=0.01, seed=1, unlike="M", recall_there=0.95)
    choice = choose(
        replayed(rows, v2_0_0=current, v1_5_0=scores_of(rows, recall=0.95, false_alarms=0.004, seed=2, unlike="M", recall_there=0.05))
    )
    assert choice.ranking[0].gain_low > 0  # type: ignore[operator]
    assert choice.target is None
    assert "worse than v2.0.0 on asset type M" in choice.sentence


def test_a_version_never_trained_on_an_asset_type_that_occurs_is_refused_by_its_manifest(rows: list[Prediction]) -> None:
    replay = replayed(rows, v2_0_0=scores_of(rows, **BAD, seed=1), v1_5_0=scores_of(rows, **SOUND, seed=2))
    known = {"v2.0.0": version("v2.0.0"), "v1.5.0": version("v1.5.0", types=("L", "M"))}
    choice = choose(replay, known=known)
    assert choice.target is None
    assert "never trained on asset type H, 400 of 4000 requests" in choice.sentence
    assert choose(replay, known=known | {"v2.0.0": version("v2.0.0", types=("L", "M"))}).target == "v1.5.0"  # nothing is lost by it


def test_few_known_failures_are_no_refusal(rows: list[Prediction]) -> None:
    few = rows[:400]
    choice = choose(replayed(few, v2_0_0=scores_of(few, **BAD, seed=1), v1_5_0=scores_of(few, **SOUND, seed=2)))
    assert choice.target is None
    assert choice.not_enough_evidence
    assert "30 needed" in choice.sentence


def test_a_current_version_that_cannot_be_replayed_is_judged_by_its_logged_scores(rows: list[Prediction]) -> None:
    logged = [replace(p, score=s) for p, s in zip(rows, scores_of(rows, **BAD, seed=1), strict=True)]
    assert choose(replayed(logged, v2_0_0="unreadable", v1_5_0=scores_of(rows, **SOUND, seed=2))).target == "v1.5.0"


def test_without_another_version_there_is_no_target(rows: list[Prediction]) -> None:
    choice = choose(replayed(rows, v2_0_0=scores_of(rows, **BAD, seed=1)))
    assert (choice.target, choice.not_enough_evidence) == (None, False)


def validated(replay: Replayed, **more: object) -> Decision:
    given = {"champion": version("v2.0.0"), "candidate": version("v2.1.0"), "threshold": 0.5, "policy": RETRAINING, "drops": DROPS}
    return validate(replay, **(given | more)).verdict  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def better(rows: list[Prediction]) -> Replayed:
    return replayed(rows, v2_0_0=scores_of(rows, **BAD, seed=1), v2_1_0=scores_of(rows, **SOUND, seed=2))


def test_a_better_candidate_is_to_be_promoted_and_every_check_is_said(better: Replayed) -> None:
    verdict = validate(better, champion=version("v2.0.0"), candidate=version("v2.1.0"), threshold=0.5, policy=RETRAINING, drops=DROPS)
    assert verdict.verdict is Decision.PROMOTE
    assert {c.name for c in verdict.checks} >= {"f1", "precision", "recall", "segment H", "calibration", "schema", "size", "latency"}
    assert verdict.candidate.f1 > verdict.champion.f1  # type: ignore[operator]


def test_only_rows_that_the_training_never_saw_count(better: Replayed) -> None:
    assert validated(better, candidate=version("v2.1.0", trained_to=T0 + timedelta(seconds=3800))) is Decision.NOT_ENOUGH_EVIDENCE
    late = validate(
        better,
        champion=version("v2.0.0"),
        candidate=version("v2.1.0", trained_to=T0 + timedelta(seconds=1000)),
        threshold=0.5,
        policy=RETRAINING,
        drops=DROPS,
    )
    assert late.rows == 3000


def test_a_candidate_trained_on_poisoned_data_is_not_promoted(rows: list[Prediction]) -> None:
    replay = replayed(rows, v2_0_0=scores_of(rows, **SOUND, seed=1), v2_1_0=scores_of(rows, **BAD, seed=2))
    assert validated(replay) is Decision.DO_NOT_PROMOTE


def test_a_candidate_that_is_better_by_chance_waits(rows: list[Prediction]) -> None:
    champion = scores_of(rows, **SOUND, seed=1)
    one_more = list(champion)
    one_more[next(i for i, p in enumerate(rows) if p.outcome and champion[i] < 0.5)] = 0.9
    assert validated(replayed(rows, v2_0_0=champion, v2_1_0=tuple(one_more))) is Decision.NOT_ENOUGH_EVIDENCE
    assert validated(replayed(rows, v2_0_0=champion, v2_1_0=champion)) is Decision.DO_NOT_PROMOTE


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"size_bytes": 900_000_000}, "900.0 MB"),
        ({"latency_ms": 40.0}, "20.0 times"),
        ({"problem": "needs vibration_mm_s", "scores": ()}, "vibration_mm_s"),
    ],
)
def test_a_candidate_too_large_too_slow_or_unable_is_not_promoted(better: Replayed, change: dict[str, object], why: str) -> None:
    candidate = replace(better.versions[1], **change)  # type: ignore[arg-type]
    verdict = validate(
        replace(better, versions=(better.versions[0], candidate)),
        champion=version("v2.0.0"), candidate=version("v2.1.0"), threshold=0.5, policy=RETRAINING, drops=DROPS,
    )  # fmt: skip
    assert verdict.verdict is Decision.DO_NOT_PROMOTE
    assert why in verdict.sentence


def test_a_candidate_that_needs_an_unserved_feature_is_not_promoted(better: Replayed) -> None:
    assert validated(better, candidate=version("v2.1.0", features=("torque_nm", "vibration_mm_s"))) is Decision.DO_NOT_PROMOTE


def test_a_candidate_that_lost_an_asset_type_is_not_promoted(better: Replayed) -> None:
    assert validated(better, candidate=version("v2.1.0", types=("L", "M"))) is Decision.DO_NOT_PROMOTE


def test_an_asset_type_the_champion_never_saw_counts_for_the_candidate(better: Replayed) -> None:
    verdict = validate(
        better, champion=version("v2.0.0", types=("L", "M")), candidate=version("v2.1.0"), threshold=0.5, policy=RETRAINING, drops=DROPS
    )
    assert next(c for c in verdict.checks if c.name == "segment H").sentence.endswith("v2.0.0 was never trained on it")


def test_a_segment_without_failures_is_not_applicable(rows: list[Prediction]) -> None:
    kept = [replace(p, outcome=False) if p.asset_type == "H" else p for p in rows]
    replay = replayed(kept, v2_0_0=scores_of(kept, **BAD, seed=1), v2_1_0=scores_of(kept, **SOUND, seed=2))
    verdict = validate(replay, champion=version("v2.0.0"), candidate=version("v2.1.0"), threshold=0.5, policy=RETRAINING, drops=DROPS)
    assert next(c for c in verdict.checks if c.name == "segment H").passed is None
    assert verdict.verdict is Decision.PROMOTE


def shadow(rows: list[Prediction], own: tuple[float, ...], theirs: tuple[float, ...]) -> ShadowVerdict:
    live = [replace(p, score=s, shadow_version="v2.1.0", shadow_score=o) for p, s, o in zip(rows, theirs, own, strict=True)]
    unscored = [replace(p, shadow_version="v9", shadow_score=0.9) for p in rows]
    return compare_shadow([*live, *unscored], "v2.1.0", 0.5, RETRAINING, DROPS)


def test_the_shadow_passes_refuses_or_waits(rows: list[Prediction]) -> None:
    sound, bad = scores_of(rows, **SOUND, seed=1), scores_of(rows, **BAD, seed=2)
    assert shadow(rows, sound, bad).passed is True
    assert shadow(rows, bad, sound).passed is False
    assert shadow(rows[:300], sound[:300], bad[:300]).passed is None
    assert shadow(rows, sound, bad).rows == len(rows)


def test_a_promoted_version_falls_only_beyond_chance() -> None:
    promoted = Confusion(tp=82, fp=18, fn=18, tn=2882)
    assert promotion_fell(promoted, Confusion(tp=40, fp=40, fn=60, tn=2860), DROPS)[0] is True
    assert promotion_fell(promoted, Confusion(tp=36, fp=8, fn=10, tn=1300), DROPS)[0] is False
    assert promotion_fell(promoted, Confusion(tp=5, fp=3, fn=3, tn=300), DROPS)[0] is None
    assert promotion_fell(promoted, Confusion(tp=2, fp=8, fn=6, tn=300), DROPS)[0] is True  # few, and far too bad for chance


@pytest.mark.parametrize(
    ("a", "b", "p"), [(0, 0, 1.0), (5, 5, 1.0), (0, 6, 0.03125), (1, 9, 0.021484375), (0, 4000, 0.0), (1900, 2100, 0.0016)]
)
def test_mcnemar_is_the_exact_binomial(a: int, b: int, p: float) -> None:
    assert mcnemar(a, b) == pytest.approx(p, abs=1e-4) == mcnemar(b, a)


def test_the_paired_interval_covers_the_true_difference() -> None:
    """600 drawn windows of 30 failures; the delta method covers .90 here."""
    import numpy as np

    cells = [(t, a, b) for t in (False, True) for a in (False, True) for b in (False, True)]
    shares = np.array([0.97 * p for p in (0.9930, 0.0005, 0.0011, 0.0054)] + [0.03 * p for p in (0.185, 0.065, 0.015, 0.735)])
    shares /= shares.sum()

    def f1(which: int) -> float:
        tp = sum(s for c, s in zip(cells, shares, strict=True) if c[0] and c[which])
        return 2 * tp / (2 * tp + sum(s for c, s in zip(cells, shares, strict=True) if c[0] != c[which]))

    true, rng, covered = f1(2) - f1(1), np.random.default_rng(3), 0
    for counts in rng.multinomial(1000, shares, size=600):
        drawn = [c for c, n in zip(cells, counts, strict=True) for _ in range(n)]
        pair = compare(*zip(*drawn, strict=True))
        covered += pair.low <= true <= pair.high
    assert covered / 600 > 0.93


alarms = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=200)


@given(alarms)
def test_swapping_the_versions_mirrors_the_comparison(drawn: list[tuple[bool, bool, bool]]) -> None:
    truth, first, second = zip(*drawn, strict=True)
    one, two = compare(truth, first, second), compare(truth, second, first)
    assert one.p_value == two.p_value
    if one.gain is not None:
        assert (one.gain, one.low, one.high) == pytest.approx((-two.gain, -two.high, -two.low))  # type: ignore[operator]
        assert one.low <= one.gain <= one.high


@given(alarms)
def test_a_version_is_never_better_than_itself(drawn: list[tuple[bool, bool, bool]]) -> None:
    truth, first, _ = zip(*drawn, strict=True)
    pair = compare(truth, first, first)
    assert not pair.better
    assert not pair.worse


def test_the_difference_of_separate_rows_is_wider_than_that_of_the_same_rows() -> None:
    a, b = Confusion(tp=50, fp=10, fn=20, tn=900), Confusion(tp=60, fp=8, fn=10, tn=900)
    assert difference(a, b)[1] < difference(a, b, correlation=0.8)[1]


def test_calibration_and_brier_by_hand() -> None:
    assert calibration_error([True, False], [0.95, 0.05]) == pytest.approx(0.05)
    assert brier_score([True, False], [0.8, 0.4]) == pytest.approx(0.1)
