"""What the rows logged decides: their threshold, their asset type, what was always missing. Nothing of it is retrained on."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from mlrunbook.domain.actions import Path
from mlrunbook.domain.cause import Cause
from mlrunbook.domain.evaluation.probing import judge_probing
from mlrunbook.domain.investigation import findings as f
from mlrunbook.domain.investigation.findings import State
from mlrunbook.domain.investigation.logged_threshold import logged_threshold
from mlrunbook.domain.observed import Change, Prediction
from mlrunbook.domain.policy.judging import DropPolicy
from mlrunbook.domain.resolution.training_rows import judge_training_rows
from tests.domain.investigation.worlds import START, THRESHOLD, Features, Fleet, looked_into

N = 2400
BEFORE = Fleet(N, seed=1).log()
NOW = Fleet(N, first=N, seed=2).log()
UNTIL = NOW[-1].at


def at_threshold(rows: list[Prediction], threshold: float, *, since: int = 0, every: int = 1) -> list[Prediction]:
    return [replace(p, threshold=threshold, label=p.score >= threshold) if i >= since and i % every == 0 else p for i, p in enumerate(rows)]


def misled(risk: float, rng: np.random.Generator) -> float:
    return 1 - risk if rng.random() < 0.5 else risk


class TestAThresholdThatNobodyReported:
    @pytest.mark.parametrize("threshold", [0.02, 0.06, 0.97])
    @pytest.mark.parametrize("since", [0, N // 2])
    def test_it_is_put_back_to_what_the_rows_carried_before(self, threshold: float, since: int) -> None:
        d = looked_into(BEFORE, at_threshold(NOW, threshold, since=since)).diagnosis
        assert (d.top.cause, d.path, d.target_threshold) == (Cause.THRESHOLD_CHANGE, Path.THRESHOLD, THRESHOLD)
        assert d.began_at == NOW[since].at
        assert "no change of it was reported" in d.sentence

    def test_one_of_several_servers_that_slipped_is_seen(self) -> None:
        found = logged_threshold(BEFORE, at_threshold(NOW, 0.03, since=600, every=3), version="v2.0.0", until=UNTIL)
        assert found is not None
        assert (found.before, found.after, found.at) == (THRESHOLD, 0.03, NOW[600].at)

    def test_an_older_reported_change_does_not_hide_it(self) -> None:
        reported = Change("config", "r4", "operator", START, {"from": {"threshold": 0.5}, "to": {"threshold": THRESHOLD}})
        d = looked_into(BEFORE, at_threshold(NOW, 0.03), [reported]).diagnosis
        assert (d.path, d.target_threshold) == (Path.THRESHOLD, THRESHOLD)

    def test_a_reported_change_is_told_as_it_was_reported(self) -> None:
        reported = Change("config", "r4", "operator", NOW[0].at, {"from": {"threshold": THRESHOLD}, "to": {"threshold": 0.03}})
        d = looked_into(BEFORE, at_threshold(NOW, 0.03), [reported]).diagnosis
        assert d.path is Path.THRESHOLD
        assert "operator" in d.sentence

    @pytest.mark.parametrize(
        "rows",
        [
            NOW,
            at_threshold(NOW, THRESHOLD + 1e-9),
            at_threshold(NOW, 0.1)[: N // 2] + NOW[N // 2 :],  # tried out, and put back
            [replace(p, version="v3.0.0") for p in at_threshold(NOW, 0.1)],  # a release has a threshold of its own
            at_threshold(NOW, 0.1, since=N - 4),
        ],
        ids=["as before", "rounding", "put back", "another version", "a few rows"],
    )
    def test_what_is_no_slip_is_none(self, rows: list[Prediction]) -> None:
        assert logged_threshold(BEFORE, rows, version="v2.0.0", until=UNTIL) is None

    def test_what_the_response_itself_has_set_is_none(self) -> None:
        assert logged_threshold(BEFORE, at_threshold(NOW, 0.9, since=N // 2), version="v2.0.0", until=NOW[N // 2 - 1].at) is None

    def test_a_threshold_a_row_has_none_to_go_back_to(self) -> None:
        varied = [replace(p, threshold=0.3 + (p.id % 50) / 100) for p in BEFORE]
        assert logged_threshold(varied, at_threshold(NOW, 0.03), version="v2.0.0", until=UNTIL) is None


def shuffled(rows: list[Prediction], kind: str, seed: int = 5) -> list[Prediction]:
    """A broken join: each row of the type has the features, and so the score, of another one of it."""
    hit = [i for i, p in enumerate(rows) if p.asset_type == kind]
    mixed, made = np.random.default_rng(seed).permutation(hit), list(rows)
    for i, j in zip(hit, mixed, strict=True):
        made[i] = replace(rows[i], features=rows[j].features, score=rows[j].score, label=rows[j].label)
    return made


class TestABrokenSegment:
    @pytest.mark.parametrize("kind", ["L", "M", "H"])
    def test_it_is_named_although_it_pulls_down_the_figure_of_all(self, kind: str) -> None:
        seen = looked_into(BEFORE, shuffled(NOW, kind))
        assert seen.facts.verdict is not None
        assert seen.facts.verdict.is_real, "over all F1 has fallen"
        assert f"asset type {kind}" in seen.diagnosis.sentence
        assert seen.diagnosis.path is None

    def test_where_all_are_worse_the_model_is_retrained(self) -> None:
        seen = looked_into(BEFORE, Fleet(N, first=N, seed=2, mislead=misled).log())
        assert (seen.diagnosis.top.cause, seen.diagnosis.path) == (Cause.CONCEPT_DRIFT, Path.RETRAIN)


def a_third_missing(i: int, row: Features, rng: np.random.Generator) -> Features:
    return row | {"wear": None} if rng.random() < 0.3 else row


class TestAFeatureThatWasAlwaysAThirdMissing:
    before, now = Fleet(N, seed=1, spoil=a_third_missing).log(), Fleet(N, first=N, seed=2, spoil=a_third_missing).log()

    def test_is_no_trouble(self) -> None:
        found = f.missing_features(self.now, self.before)
        assert found.state is State.OK
        assert "as in the baseline" in found.sentence
        assert f.missing_features(self.now, BEFORE).state is State.SUSPECT

    def test_hides_no_cause(self) -> None:
        worse = Fleet(N, first=N, seed=2, spoil=a_third_missing, mislead=misled).log()
        assert looked_into(self.before, worse).diagnosis.top.cause is Cause.CONCEPT_DRIFT

    def test_infinite_values_count_as_missing(self) -> None:
        infinite = [replace(p, features=dict(p.features) | {"wear": float("inf")}) for p in NOW]
        assert f.missing_features(infinite, BEFORE).state is State.SUSPECT
        assert looked_into(BEFORE, infinite[:5] + NOW[5:]).diagnosis.path is None


class TestNobodyProbes:
    @pytest.mark.parametrize("assets", [1, 2, 19])
    def test_a_log_about_few_assets_cannot_show_that_somebody_does(self, assets: int) -> None:
        before, now = Fleet(N, seed=1, assets=assets).log(), Fleet(N, first=N, seed=2, assets=assets).log()
        strange = [replace(p, features=dict(p.features) | {"torque": 5000.0 + p.id}) for p in now[:100]] + now[100:]
        assert judge_probing(strange, before).suspicious is None

    def test_one_rare_value_however_often_it_comes_is_a_broken_sensor(self) -> None:
        stuck = [replace(p, asset_id="pump_7", features=dict(p.features) | {"torque": 9999.0}) for p in NOW[:300]]
        assert judge_probing(NOW[300:] + stuck, BEFORE).suspicious is False

    def test_an_asset_whose_sensor_is_broken_is_asked_about_as_often_as_ever(self) -> None:
        busy = [Fleet(N, first=first, seed=seed, assets=40).log() for first, seed in ((0, 1), (N, 2))]
        broken = [
            replace(p, features=dict(p.features) | {"torque": p.features["torque"] * 100}) if p.asset_id == "pump_7" else p for p in busy[1]
        ]
        assert judge_probing(broken, busy[0]).suspicious is False


class TestACandidateTrainedOnBrokenRows:
    def judged(self, rows: list[Prediction], **changes: bool) -> bool | None:
        return judge_training_rows(BEFORE, rows, version="v2.0.0", end=UNTIL, drops=DropPolicy(), **changes).passed

    def test_is_refused(self) -> None:
        broken = [replace(p, features=dict(p.features) | {"torque": p.features["torque"] * 10}) for p in NOW[: N // 4]]
        assert self.judged(broken + NOW[N // 4 :]) is False, "also where it has been fixed since"
        assert self.judged(at_threshold(NOW, 0.03, since=N // 2)) is False
        assert self.judged(shuffled(NOW, "H")) is False

    def test_is_refused_for_each_kind_even_where_it_has_passed_and_was_short(self) -> None:
        for name, value in {"unit": lambda v: v * 10, "constant": lambda _: 41.0, "missing": lambda _: None, "text": str}.items():
            part = slice(N // 2, N // 2 + N // 25)
            broken = [replace(p, features=dict(p.features) | {"torque": value(p.features["torque"])}) for p in NOW[part]]
            assert self.judged([*NOW[: part.start], *broken, *NOW[part.stop :]]) is False, name

    def test_may_learn_an_asset_type_that_a_person_asked_for(self) -> None:
        assert self.judged(shuffled(NOW, "H"), asked=True) is None

    def test_is_none_where_the_rows_are_whole_or_too_few(self) -> None:
        assert self.judged(NOW) is True
        assert self.judged(Fleet(N, first=N, seed=2, mislead=misled).log()) is True, "what changed in the world is to be learned"
        assert self.judged(NOW[:50]) is None


def test_a_log_that_is_dated_ahead_is_told() -> None:
    assert f.data_freshness(NOW, UNTIL - timedelta(hours=2)).state is State.SUSPECT
    assert "2 h in the future" in f.data_freshness(NOW, UNTIL - timedelta(hours=2)).sentence
