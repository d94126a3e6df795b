from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics
from mlrunbook.domain.investigation import findings as f
from mlrunbook.domain.investigation.findings import CHECKLIST, Finding, State
from mlrunbook.domain.observed import FeatureServerAnswer, Missing, Prediction, Resources
from tests.domain.builders import BASELINE, FALLEN, HEALTHY, MODEL, NOW, TINY, change, metrics, prediction, window

MISSING = Missing("connection refused")


def every_finding(
    m: ModelMetrics | Missing = MISSING, log: list[Prediction] | Missing = MISSING, missing: Missing = MISSING
) -> list[Finding]:
    return [
        *f.recent_changes(missing, NOW),
        *f.model_performance(m),
        f.feature_distributions(log, missing),
        f.missing_features(log),
        f.data_freshness(log, NOW),
        *f.feature_store(missing),
        f.server_logs(missing),
        f.resource_utilization(missing),
        f.inference_latency(m),
        f.predictions_vs_outcomes(log, missing),
        f.error_patterns(log),
        f.affected_asset_types(m),
    ]


def only(key: str, found: list[Finding]) -> Finding:
    (one,) = [x for x in found if x.key == key]
    return one


def test_the_checklist_is_the_runbooks_19_items_in_5_groups() -> None:
    sizes: dict[str, int] = {}
    for item in CHECKLIST:
        sizes[item.group] = sizes.get(item.group, 0) + 1
        assert re.fullmatch(r"[a-z_]+\.[a-z_]+", item.key)
    assert sizes == {"Recent Changes": 4, "Model Performance": 4, "Data Quality": 4, "Infrastructure": 4, "Ground Truth": 3}
    assert len({item.key for item in CHECKLIST}) == 19


def test_every_item_has_exactly_one_evaluator() -> None:
    assert sorted(x.key for x in every_finding()) == sorted(item.key for item in CHECKLIST)


@given(st.text(max_size=30))
def test_an_absent_source_is_unknown_never_ok(why: str) -> None:
    missing = Missing(why)
    for finding in every_finding(missing, missing, missing):
        assert finding.state is State.UNKNOWN
        assert why in finding.sentence


@pytest.mark.parametrize("m", [metrics(Confusion(), predictions=0, latency_p95_ms=None), metrics(TINY)])
def test_a_source_with_too_little_in_it_is_unknown_never_ok(m: ModelMetrics) -> None:
    for finding in [*f.model_performance(m), f.affected_asset_types(m)]:
        assert finding.state is State.UNKNOWN, finding
    for finding in every_finding(m, []):
        assert finding.state is not State.OK or finding.key == "infrastructure.inference_latency"


def test_a_finding_outside_the_checklist_is_refused() -> None:
    with pytest.raises(ValueError, match="not an item"):
        Finding("data_quality.vibes", State.OK, "", None, "")


@pytest.mark.parametrize("m", [metrics(FALLEN), metrics(HEALTHY), metrics(Confusion())])
def test_every_value_can_be_stored_as_json(m: ModelMetrics) -> None:
    for finding in every_finding(m, [prediction(i) for i in range(60)]):
        json.dumps(finding.value)


# --- Recent Changes


def test_a_deployment_in_the_last_7_days_is_suspect_and_named() -> None:
    finding = only("recent_changes.model_deployment", f.recent_changes([change("deployment", hours_ago=5)], NOW))
    assert finding.state is State.SUSPECT
    assert finding.sentence == "1 in the last 7 days, the newest: deployment v2.0.0 by release-bot, 5 h ago"


def test_an_older_deployment_is_ok() -> None:
    assert only("recent_changes.model_deployment", f.recent_changes([change("deployment", hours_ago=24 * 8)], NOW)).state is State.OK


def test_a_config_change_counts_as_an_infrastructure_change() -> None:
    found = f.recent_changes([change("config", hours_ago=1)], NOW)
    assert only("recent_changes.infrastructure_changes", found).state is State.SUSPECT


def test_kinds_of_change_nobody_records_are_unknown_not_ok() -> None:
    found = f.recent_changes([], NOW)
    assert only("recent_changes.feature_store_updates", found).state is State.UNKNOWN
    assert only("recent_changes.data_pipeline_changes", found).state is State.UNKNOWN
    everything = frozenset({"deployment", "config", "feature_store", "data_pipeline"})
    assert all(x.state is State.OK for x in f.recent_changes([], NOW, recorded=everything))


# --- Model Performance


def test_a_fallen_model_is_suspect_in_numbers_a_person_can_read() -> None:
    found = f.model_performance(metrics(FALLEN))
    assert only("model_performance.metrics_dashboard", found).sentence == (
        "f1 0.55, precision 0.62, recall 0.49 (1000 predictions, 1000 with known outcome)"
    )
    matrix = only("model_performance.confusion_matrix", found)
    assert matrix.state is State.SUSPECT
    assert matrix.sentence == "of 102 failures 50 were caught and 52 missed; of 80 alarms 30 were false"


def test_accuracy_by_risk_level_names_the_level_that_fell() -> None:
    before = {"high": Confusion(tp=90, fp=10), "low": Confusion(fn=10, tn=890)}
    now = {"high": Confusion(tp=55, fp=45), "low": Confusion(fn=10, tn=890)}
    m = ModelMetrics(MODEL, window(FALLEN, by_risk_level=now), window(BASELINE, by_risk_level=before))
    finding = only("model_performance.accuracy_by_risk_level", f.model_performance(m))
    assert (finding.state, finding.sentence) == (State.SUSPECT, "accuracy fell at risk level high 0.90 -> 0.55")
    same = ModelMetrics(MODEL, window(FALLEN, by_risk_level=before), window(BASELINE, by_risk_level=before))
    assert only("model_performance.accuracy_by_risk_level", f.model_performance(same)).state is State.OK


# --- Data Quality


def sensors(n: int, *, shift: float = 0.0, seed: int = 0, kinds: str = "LLLLLLMMMH") -> list[Prediction]:
    rng = np.random.default_rng(seed)
    return [
        prediction(i, asset_type=kinds[int(rng.integers(len(kinds)))], features={"torque": rng.normal(40 + shift, 10), "rpm": rng.normal()})
        for i in range(n)
    ]


def test_a_shifted_feature_is_named() -> None:
    finding = f.feature_distributions(sensors(400, shift=8, seed=1), sensors(800, seed=2))
    assert finding.state is State.SUSPECT
    assert finding.sentence == ("the distribution moved for torque (up by 0.9 standard deviations); 400 recent against 800 reference rows")


def test_a_new_mix_of_asset_types_is_drift() -> None:
    finding = f.feature_distributions(sensors(400, kinds="HHHL", seed=1), sensors(800, seed=2))
    assert "asset_type" in finding.sentence


def test_unchanged_features_rarely_alarm() -> None:
    alarms = sum(f.feature_distributions(sensors(300, seed=s), sensors(600, seed=100 + s)).state is State.SUSPECT for s in range(10))
    assert alarms <= 1


def test_a_slow_random_walk_is_not_called_drift() -> None:
    def walk(seed: int) -> list[Prediction]:
        steps = np.cumsum(np.random.default_rng(seed).normal(size=400))
        return [prediction(i, asset_type="L", features={"air_temperature": float(v)}) for i, v in enumerate(steps)]

    assert f.feature_distributions(walk(1), walk(2)).state is not State.SUSPECT


def test_no_rows_on_a_side_are_unknown_not_features_that_went_or_came() -> None:
    rows = sensors(400, seed=1)
    assert {f.feature_distributions(recent, before).state for recent, before in (([], rows), (rows, []), ([], []))} == {State.UNKNOWN}


def test_the_order_of_the_prediction_log_changes_nothing() -> None:
    recent, reference = sensors(400, shift=4, seed=1), sensors(800, seed=2)
    straight = f.feature_distributions(recent, reference)
    rng = np.random.default_rng(3)
    for _ in range(5):
        mixed = [recent[i] for i in rng.permutation(400)], [reference[i] for i in rng.permutation(800)]
        assert f.feature_distributions(*mixed) == straight


def test_empty_and_null_columns_do_not_break_the_drift_check() -> None:
    rows = [prediction(i, features={"a": None, "b": float("nan"), "c": 1.0}) for i in range(80)]
    finding = f.feature_distributions(rows, rows)
    assert finding.state is State.OK
    assert {name for name, column in finding.value.items() if column["effect"] is not None} == {"asset_type", "c"}


def test_missing_values_over_5_percent_are_suspect() -> None:
    rows = [prediction(i, features={"torque": None if i % 10 == 0 else 40.0, "rpm": 1500.0}) for i in range(100)]
    finding = f.missing_features(rows)
    assert (finding.state, finding.sentence) == (State.SUSPECT, "missing values over 5 %: torque 10 %")
    assert f.missing_features([prediction(i) for i in range(100)]).state is State.OK
    assert f.missing_features(rows[:5]).state is State.UNKNOWN


def test_old_predictions_are_not_fresh() -> None:
    assert f.data_freshness([prediction(3)], NOW).sentence == "the newest prediction is 3 s old"
    old = f.data_freshness([prediction(1, at=NOW - timedelta(hours=3))], NOW)
    assert (old.state, old.sentence) == (State.SUSPECT, "the newest prediction is 3 h old")


def test_a_healthy_feature_server_that_cannot_be_read_is_suspect() -> None:
    read, up = f.feature_store(FeatureServerAnswer(healthy=True, read_ok=False, detail="500 database is locked"))
    assert (read.state, up.state) == (State.SUSPECT, State.SUSPECT), "a store that fails reads is not available"
    assert "database is locked" in read.sentence
    assert f.feature_store(FeatureServerAnswer(healthy=True))[0].state is State.UNKNOWN


# --- Infrastructure


def test_error_lines_and_tracebacks_are_counted() -> None:
    text = "INFO ready\nERROR cannot score\nTraceback (most recent call last):\nINFO GET /errors 200, 0 errors\n"
    finding = f.server_logs(text)
    assert (finding.state, finding.value["errors"]) == (State.SUSPECT, 2)
    assert f.server_logs("INFO ready\n").state is State.OK
    assert f.server_logs("").state is State.UNKNOWN


def test_a_server_that_logged_nothing_since_the_failure_began_has_no_error_there() -> None:
    since = datetime(2026, 3, 2, 12, tzinfo=UTC)
    quiet = f.server_logs("==> pod-1 model-server <==\n", since=since)
    assert (quiet.state, quiet.sentence) == (State.OK, "the model server has logged nothing since 2026-03-02 12:00:00 UTC")
    assert f.server_logs("ERROR cannot score\n", since=since).sentence.startswith(
        "1 error lines in the last 1 since 2026-03-02 12:00:00 UTC"
    )


def test_latency_and_resources_over_their_limits_are_suspect() -> None:
    assert f.inference_latency(metrics(HEALTHY, latency_p95_ms=2400.0)).state is State.SUSPECT
    assert f.inference_latency(metrics(HEALTHY)).sentence == "95 % of 1000 predictions took at most 40 ms (SLA 2000 ms)"
    assert f.resource_utilization(Resources(0.3, 0.97)).state is State.SUSPECT
    assert f.resource_utilization(Resources(0.3, 0.4)).state is State.OK


# --- Ground Truth


def labelled(wrong: int, right: int, *, kind: str, start: int = 0) -> list[Prediction]:
    bad = [prediction(start + i, score=0.9, outcome=False, asset_type=kind) for i in range(wrong)]
    return bad + [prediction(start + wrong + i, score=0.9, outcome=True, asset_type=kind) for i in range(right)]


def test_errors_that_gather_at_one_asset_type_are_a_pattern() -> None:
    finding = f.error_patterns(labelled(40, 10, kind="H") + labelled(10, 140, kind="L", start=500))
    assert finding.state is State.SUSPECT
    assert finding.sentence == "50 false positives and 0 false negatives; errors gather at asset type H (40 FP, 0 FN of 50)"
    even = f.error_patterns(labelled(20, 80, kind="H") + labelled(20, 80, kind="L", start=500))
    assert even.state is State.OK
    assert f.error_patterns(labelled(5, 80, kind="H")).state is State.UNKNOWN


def test_recent_outcomes_are_graded_against_the_baseline() -> None:
    rows = labelled(60, 40, kind="L")
    finding = f.predictions_vs_outcomes(rows, BASELINE)
    assert finding.sentence.startswith("60 of 100 recent predictions with a known outcome were wrong; ")
    assert finding.state is State.SUSPECT
    assert f.predictions_vs_outcomes(rows, MISSING).state is State.UNKNOWN


def test_the_asset_type_that_lost_performance_is_named_although_the_others_hold() -> None:
    before, now = {"H": BASELINE, "L": BASELINE}, {"H": FALLEN, "L": HEALTHY}
    m = ModelMetrics(MODEL, window(HEALTHY, by_asset_type=now), window(BASELINE, by_asset_type=before))
    finding = f.affected_asset_types(m)
    assert finding.state is State.SUSPECT
    assert finding.sentence.startswith("affected: H (F1 fell 31 %")
    assert " L " not in finding.sentence


def test_an_asset_type_without_enough_failures_is_not_called_unaffected() -> None:
    before, now = {"H": BASELINE, "L": BASELINE}, {"H": TINY, "L": HEALTHY}
    m = ModelMetrics(MODEL, window(HEALTHY, by_asset_type=now), window(BASELINE, by_asset_type=before))
    finding = f.affected_asset_types(m)
    assert (finding.state, finding.sentence) == (State.UNKNOWN, "too few known failures to judge H")
