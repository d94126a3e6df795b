from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrunbook.domain.detection.severity import AlertSignal, Assessment
from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics
from mlrunbook.domain.incident import IncidentType, Severity
from tests.domain.builders import BASELINE, FALLEN, HEALTHY, TINY, TOO_MANY_ALARMS, assessed, metrics, status

F1_ALERT = AlertSignal("ModelF1Drop", "WARNING", IncidentType.PERFORMANCE_DEGRADATION)


def look(**changes: Any) -> Assessment:
    values: dict[str, Any] = {
        "alerts": (F1_ALERT,),
        "metrics": metrics(HEALTHY),
        "status": status(),
    }
    return assessed(**(values | changes))


def report(severity: str, type_: str = "performance_degradation", **changes: Any) -> Assessment:
    return look(severity=Severity(severity), type=IncidentType(type_), alerts=(), **changes)


def test_the_measured_metric_is_the_severity_not_the_alerts_level() -> None:
    assert look(metrics=metrics(FALLEN)).severity is Severity.HIGH
    critical = AlertSignal("ModelF1Drop", "CRITICAL")
    baseline = Confusion(tp=800, fp=180, fn=220, tn=9000)
    medium = metrics(Confusion(tp=660, fp=240, fn=340, tn=9000), baseline)
    assert look(metrics=medium, alerts=(critical,)).severity is Severity.MEDIUM


def test_an_alert_the_measurement_contradicts_is_a_false_alarm() -> None:
    a = look()
    assert a.real is False
    assert a.reasons[0].startswith("false alarm: ModelF1Drop (warning) fired, but F1")


def test_all_assets_flagged_is_critical_dangerous_and_a_safety_risk() -> None:
    a = look(metrics=metrics(HEALTHY, flagged_share=0.97, predictions=400))
    assert (a.severity, a.type, a.dangerous, a.safety_risk) == (Severity.CRITICAL, IncidentType.PREDICTION_ERROR, True, True)


def test_all_assets_flagged_in_a_handful_of_predictions_is_not_yet_critical() -> None:
    assert look(metrics=metrics(TINY, flagged_share=1.0, predictions=20)).real is None


def test_a_model_that_misses_nearly_every_failure_is_critical() -> None:
    a = look(metrics=metrics(Confusion(tp=1, fp=0, fn=99, tn=900)))
    assert (a.severity, a.dangerous) == (Severity.CRITICAL, True)


def test_a_server_that_does_not_answer_is_critical_infrastructure() -> None:
    a = look(status=status(server_healthy=False))
    assert (a.real, a.severity, a.type, a.dangerous) == (True, Severity.CRITICAL, IncidentType.INFRASTRUCTURE, False)


@pytest.mark.parametrize("final", [True, False])
def test_an_unreachable_platform_makes_it_real_infrastructure_never_a_false_alarm(final: bool) -> None:
    a = look(metrics=None, status=None, platform_reachable=False, final_look=final)
    assert (a.real, a.type, a.insufficient) == (True, IncidentType.INFRASTRUCTURE, True)


def test_too_few_outcomes_ask_for_another_look_and_the_final_one_is_real_without_automatic_changes() -> None:
    first = look(metrics=metrics(TINY))
    assert (first.real, first.insufficient) == (None, True)
    last = look(metrics=metrics(TINY), final_look=True)
    assert (last.real, last.severity, last.insufficient) == (True, Severity.MEDIUM, True)
    assert "without automatic changes" in last.reasons[0]


def test_a_critical_alert_without_any_metrics_is_real_by_its_level() -> None:
    a = look(metrics=None, alerts=(AlertSignal("ModelF1Drop", "critical"),))
    assert (a.real, a.severity, a.insufficient) == (True, Severity.HIGH, True)


@pytest.mark.parametrize("severity", ["low", "medium"])
@pytest.mark.parametrize("kind", list(IncidentType))
def test_a_persons_low_or_medium_report_is_taken_at_its_word(severity: str, kind: str) -> None:
    a = report(severity, kind)
    assert (a.real, a.severity, a.type) == (True, Severity(severity), kind)


def test_a_persons_claim_about_performance_can_be_contradicted_by_the_measurement() -> None:
    a = report("high")
    assert a.real is False
    assert "the measurement says otherwise" in a.reasons[0]


def test_a_reported_missed_failure_stands_although_the_averages_look_fine() -> None:
    a = report("critical", "prediction_error")
    assert (a.real, a.severity, a.safety_risk, a.dangerous) == (True, Severity.CRITICAL, True, False)


@pytest.mark.parametrize("kind", ["security", "compliance", "bias_fairness"])
def test_what_metrics_cannot_show_they_cannot_contradict(kind: str) -> None:
    assert report("critical", kind).real is True
    assert look(alerts=(AlertSignal("Custom", "warning", IncidentType(kind)),)).real is True


@pytest.mark.parametrize("name", ["FeatureDrift", "FeatureStoreUnavailable"])
def test_an_alert_about_features_is_not_refuted_by_a_good_f1(name: str) -> None:
    assert look(alerts=(AlertSignal(name, "CRITICAL", IncidentType.INFRASTRUCTURE),)).real is True


def test_a_latency_alert_needs_measured_latency_to_be_refuted() -> None:
    slow = AlertSignal("InferenceLatencyHigh", "WARNING", IncidentType.PERFORMANCE_DEGRADATION)
    assert look(alerts=(slow,)).real is False
    assert look(alerts=(slow,), metrics=metrics(HEALTHY, latency_p95_ms=None)).real is None
    assert look(alerts=(slow,), metrics=metrics(HEALTHY, latency_p95_ms=2500.0)).severity is Severity.MEDIUM


def test_a_server_that_answers_again_refutes_its_alert_in_those_words() -> None:
    a = look(alerts=(AlertSignal("ModelServerDown", "critical", IncidentType.INFRASTRUCTURE),))
    assert (a.real, a.reasons) == (False, ("false alarm: ModelServerDown (critical) fired, but the model server answers",))


def test_one_unrefuted_alert_among_refuted_ones_keeps_the_incident_open() -> None:
    slow = AlertSignal("InferenceLatencyHigh", "WARNING", IncidentType.PERFORMANCE_DEGRADATION)
    assert look(alerts=(F1_ALERT, slow), metrics=metrics(HEALTHY, latency_p95_ms=None)).real is None


def test_errors_and_nulls_over_their_limits_are_real() -> None:
    assert look(metrics=metrics(HEALTHY, error_rate=0.03)).type is IncidentType.INFRASTRUCTURE
    assert look(metrics=metrics(HEALTHY, null_rate=0.08)).severity is Severity.LOW


def test_precision_collapse_with_recall_held_is_high_with_excessive_false_positives() -> None:
    a = look(metrics=metrics(TOO_MANY_ALARMS))
    assert (a.severity, a.excessive_false_positives) == (Severity.HIGH, True)
    assert "150 of 240 alarms were false" in a.reasons[0]


def test_a_model_that_also_misses_failures_is_not_merely_too_sensitive() -> None:
    assert look(metrics=metrics(FALLEN)).excessive_false_positives is False


def test_a_security_report_stays_a_security_incident_while_performance_falls_too() -> None:
    assert report("medium", "security", metrics=metrics(FALLEN)).type is IncidentType.SECURITY


confusions = st.builds(Confusion, *[st.integers(0, 300)] * 4)


@settings(deadline=None)
@given(st.sampled_from(list(Severity)), st.sampled_from(list(IncidentType)), st.none() | confusions, st.booleans(), st.booleans())
def test_a_reported_severity_is_never_lowered(s: Severity, t: IncidentType, c: Confusion | None, up: bool, final: bool) -> None:
    m = metrics(c) if c is not None else None
    a = assessed(severity=s, type=t, metrics=m, status=status(), platform_reachable=up, final_look=final)
    assert a.severity.rank >= s.rank
    assert a.reasons


@given(st.none() | confusions, st.booleans())
def test_a_final_look_always_decides(c: Confusion | None, up: bool) -> None:
    m = metrics(c) if c is not None else None
    assert look(metrics=m, platform_reachable=up, final_look=True).real is not None


def test_a_model_server_that_cannot_read_features_is_critical_infrastructure_though_it_answers() -> None:
    a = look(status=status(features="the online store is locked"), alerts=(AlertSignal("FeatureStoreUnavailable", "CRITICAL"),))
    assert (a.real, a.severity, a.type) == (True, Severity.CRITICAL, IncidentType.INFRASTRUCTURE)
    assert "the online store is locked" in a.reasons[0]
    assert not a.insufficient


def test_a_feature_store_alert_is_false_when_the_model_server_reads_features_and_real_when_nobody_can_tell() -> None:
    alert = AlertSignal("FeatureStoreUnavailable", "CRITICAL", IncidentType.INFRASTRUCTURE)
    assert look(status=status(features="ok"), alerts=(alert,)).real is False
    unknown = look(status=status(features=None), alerts=(alert,))
    assert (unknown.real, unknown.insufficient) == (True, True)


@pytest.mark.parametrize(("share", "severity"), [(0.02, Severity.MEDIUM), (0.49, Severity.MEDIUM), (0.5, Severity.CRITICAL)])
def test_half_of_all_requests_failing_is_an_outage(share: float, severity: Severity) -> None:
    assert look(metrics=metrics(HEALTHY, error_rate=share)).severity is severity


@given(st.integers(0, 10_000), st.integers(200, 10_000))
def test_an_outage_is_critical_however_few_requests_were_still_answered(answered: int, failed: int) -> None:
    failed = max(failed, answered)
    asked = answered + failed
    told = look(metrics=metrics(Confusion(), predictions=answered, error_rate=failed / asked, errors={"scoring": failed}))
    untold = look(metrics=metrics(Confusion(), predictions=answered, error_rate=failed / asked))
    assert {(a.real, a.severity, a.type, a.insufficient) for a in (told, untold)} == {
        (True, Severity.CRITICAL, IncidentType.INFRASTRUCTURE, False)
    }


def test_a_handful_of_failed_requests_is_no_outage_yet() -> None:
    assert look(metrics=metrics(Confusion(), predictions=0, error_rate=1.0, errors={"scoring": 20})).severity is not Severity.CRITICAL


def test_a_handful_of_failures_nearly_all_missed_is_real_and_worth_another_look() -> None:
    few = look(metrics=metrics(Confusion(tp=2, fp=30, fn=33, tn=900)))
    assert (few.real, few.severity, few.may_be_worse) == (True, Severity.HIGH, True)
    many = look(metrics=metrics(Confusion(tp=10, fp=150, fn=190, tn=5000)))
    assert (many.severity, many.may_be_worse) == (Severity.CRITICAL, False)
    assert not look(metrics=metrics(FALLEN)).may_be_worse


# Critical failures


MISSED = AlertSignal("CriticalFailureMissed", "CRITICAL", IncidentType.PREDICTION_ERROR, "critical failure missed: press_1 failed")


@pytest.mark.parametrize("seen", [metrics(HEALTHY), metrics(TINY), metrics(Confusion()), None])
def test_one_missed_critical_failure_is_critical_at_once_whatever_the_averages_say(seen: ModelMetrics | None) -> None:
    a = look(metrics=seen, alerts=(MISSED,))
    assert (a.real, a.severity, a.type, a.safety_risk) == (True, Severity.CRITICAL, IncidentType.PREDICTION_ERROR, True)
    assert (a.insufficient, a.dangerous, a.may_be_worse) == (False, False, False), "nobody waits for another look; the model may be fine"
    assert a.reasons[0].startswith("critical failure missed: press_1 failed: critical")


def test_a_missed_critical_failure_needs_no_platform_to_be_real() -> None:
    a = look(metrics=None, status=None, platform_reachable=False, alerts=(F1_ALERT, MISSED))
    assert (a.real, a.severity, a.type) == (True, Severity.CRITICAL, IncidentType.PREDICTION_ERROR)


# Late outcomes


def test_where_outcomes_lag_triage_says_so() -> None:
    late = metrics(HEALTHY, predictions=9000, label_delay_s=7200.0)
    lag = "1,000 of 9,000 predictions have a known outcome; outcomes take 2 h (median of those that have come)"
    assert lag in look(metrics=late, final_look=True).reasons[0]
    assert look(metrics=metrics(FALLEN, predictions=9000, label_delay_s=7200.0)).reasons[-1] == lag
    assert not any("known outcome;" in r for r in look(metrics=metrics(FALLEN)).reasons)


# Fairness

GAP = AlertSignal("FairnessGap", "WARNING", IncidentType.BIAS_FAIRNESS)
L, M, H = Confusion(tp=800, fp=180, fn=220, tn=9000), Confusion(tp=400, fp=90, fn=110, tn=4500), Confusion(tp=120, fp=27, fn=33, tn=900)


def by_type(**now: Confusion) -> ModelMetrics:
    """A fleet of three asset types that were served alike; its overall F1 as before."""
    before = {"L": L, "M": M, "H": H}
    seen = metrics(HEALTHY, by_asset_type=before | now)
    return replace(seen, baseline=replace(seen.baseline, by_asset_type=before))


def test_an_asset_type_that_falls_while_the_overall_f1_hides_it_is_real_bias() -> None:
    a = look(metrics=by_type(H=Confusion(tp=60, fp=40, fn=93, tn=887)), alerts=(GAP,))
    assert (a.real, a.type, a.severity) == (True, IncidentType.BIAS_FAIRNESS, Severity.HIGH)
    assert "H" in a.reasons[0]


def test_groups_too_far_apart_that_fell_less_than_a_fifth_are_medium() -> None:
    a = look(metrics=by_type(H=Confusion(tp=900, fp=380, fn=420, tn=9000)), alerts=(GAP,))
    assert (a.real, a.severity) == (True, Severity.MEDIUM)


def test_groups_served_alike_refute_the_alert_and_groups_with_few_failures_do_not() -> None:
    fair = look(metrics=by_type(), alerts=(GAP,))
    assert (fair.real, fair.type) == (False, IncidentType.BIAS_FAIRNESS)
    few = by_type(H=Confusion(tp=8, fp=2, fn=2, tn=90))
    assert look(metrics=few, alerts=(GAP,)).real is None, "look again"
    last = look(metrics=few, alerts=(GAP,), final_look=True)
    assert (last.real, last.severity, last.insufficient) == (True, Severity.MEDIUM, True)


def test_a_person_who_reports_bias_is_believed_and_told_what_is_measured() -> None:
    a = report("high", "bias_fairness", metrics=by_type())
    assert (a.real, a.severity) == (True, Severity.HIGH)
    assert any("F1 by group" in r for r in a.reasons)


# What holds for every incident

KNOWN = ["ModelF1Drop", "ModelPrecisionDrop", "FeatureNullRateHigh", "FeatureDrift", "InferenceLatencyHigh", "ModelServerDown"]
KNOWN += ["FeatureStoreUnavailable", "ModelErrorRateHigh", "AllAssetsHighRisk", "CriticalFailureMissed", "FairnessGap", "Custom"]
alerts = st.lists(
    st.builds(
        AlertSignal,
        st.sampled_from(KNOWN),
        st.sampled_from(["WARNING", "CRITICAL"]),
        st.none() | st.sampled_from([t for t in IncidentType if t is not IncidentType.BIAS_FAIRNESS]),
    ),
    max_size=4,
)
rates = st.none() | st.floats(0, 1)
baselines = st.sampled_from([BASELINE, Confusion(tp=800, fp=180, fn=220, tn=9000), Confusion(tp=3, fn=1, tn=50)])
worlds = st.fixed_dictionaries(
    {
        "counts": confusions,
        "baseline": baselines,
        "flagged_share": rates,
        "error_rate": rates,
        "null_rate": rates,
        "latency_p95_ms": st.none() | st.floats(0, 5000),
        "server_healthy": st.booleans(),
        "features": st.sampled_from([None, "ok", "locked"]),
    }
)


def judged(seen: dict[str, Any], told: Sequence[AlertSignal], **reported: Any) -> Assessment:
    w = dict(seen)
    state = status(server_healthy=w.pop("server_healthy"), features=w.pop("features"))
    return assessed(alerts=told, metrics=metrics(w.pop("counts"), w.pop("baseline"), **w), status=state, final_look=True, **reported)


def harm(a: Assessment) -> int:
    return a.severity.rank + 1 if a.real else 0


def worse(seen: dict[str, Any], how: str, n: int) -> dict[str, Any]:
    c: Confusion = seen["counts"]
    match how:
        case "misses more failures":
            n = min(n, c.tp)
            return seen | {"counts": Confusion(c.tp - n, c.fp, c.fn + n, c.tn)}
        case "flags more sound assets":
            n = min(n, c.tn)
            return seen | {"counts": Confusion(c.tp, c.fp + n, c.fn, c.tn - n)}
        case "stops answering":
            return seen | {"server_healthy": False}
        case "cannot read features":
            return seen | {"features": "locked"}
        case _:
            value = seen[how]
            return seen | {how: value if value is None else value + n * (20.0 if how == "latency_p95_ms" else (1 - value) / 300)}


def test_an_alert_that_the_measurement_refutes_does_not_grade_what_another_claims() -> None:
    told = [AlertSignal("ModelF1Drop", "CRITICAL", None), AlertSignal("FeatureNullRateHigh", "WARNING", None)]
    sound = judged({"counts": Confusion(tp=31), "baseline": BASELINE, "null_rate": None, "server_healthy": True, "features": None}, told)
    assert (sound.real, sound.severity) == (True, Severity.MEDIUM), "nobody can tell the null rate; F1 is fine"


HARMS = ["misses more failures", "flags more sound assets", "stops answering", "cannot read features",
         "flagged_share", "error_rate", "null_rate", "latency_p95_ms"]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(worlds, alerts, st.sampled_from(HARMS), st.integers(1, 300))
def test_more_evidence_of_harm_never_lowers_the_severity(seen: dict[str, Any], told: list[AlertSignal], how: str, n: int) -> None:
    before, after = judged(seen, told), judged(worse(seen, how, n), told)
    assert harm(after) >= harm(before)


@settings(max_examples=100, deadline=None)
@given(worlds, alerts, st.sampled_from(list(Severity)), st.sampled_from(list(IncidentType)))
def test_no_measurement_and_no_alert_lowers_a_persons_severity(
    seen: dict[str, Any], told: list[AlertSignal], said: Severity, kind: IncidentType
) -> None:
    assert judged(seen, told, severity=said, type=kind).severity.at_least(said)


@settings(max_examples=100, deadline=None)
@given(worlds, alerts, st.randoms())
def test_the_order_of_the_alerts_changes_nothing(seen: dict[str, Any], told: list[AlertSignal], random: Random) -> None:
    shuffled = list(told)
    random.shuffle(shuffled)
    assert judged(seen, shuffled) == judged(seen, told)


@settings(max_examples=50, deadline=None)
@given(alerts, st.booleans(), st.booleans())
def test_where_nothing_can_be_measured_nothing_is_a_false_alarm(told: list[AlertSignal], up: bool, final: bool) -> None:
    blind = metrics(Confusion(), latency_p95_ms=None, error_rate=None, null_rate=None)
    for seen in (None, blind):
        a = assessed(alerts=told, metrics=seen, status=None, platform_reachable=up, final_look=final)
        assert a.real is not False
