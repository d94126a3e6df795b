from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.performance import Confusion
from mlrunbook.domain.severity import AlertSignal, Assessment, assess
from tests.domain.builders import FALLEN, HEALTHY, TINY, TOO_MANY_ALARMS, metrics, status

F1_ALERT = AlertSignal("ModelF1Drop", "WARNING", IncidentType.PERFORMANCE_DEGRADATION)


def look(**changes: Any) -> Assessment:
    values: dict[str, Any] = {
        "reported_severity": None,
        "reported_type": None,
        "alerts": (F1_ALERT,),
        "metrics": metrics(HEALTHY),
        "status": status(),
    }
    return assess(**(values | changes))


def report(severity: str, type_: str = "performance_degradation", **changes: Any) -> Assessment:
    return look(reported_severity=Severity(severity), reported_type=IncidentType(type_), alerts=(), **changes)


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


@given(st.sampled_from(list(Severity)), st.sampled_from(list(IncidentType)), st.none() | confusions, st.booleans(), st.booleans())
def test_a_reported_severity_is_never_lowered(s: Severity, t: IncidentType, c: Confusion | None, up: bool, final: bool) -> None:
    m = metrics(c) if c is not None else None
    a = assess(reported_severity=s, reported_type=t, metrics=m, status=status(), platform_reachable=up, final_look=final)
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


def test_a_handful_of_failures_nearly_all_missed_is_real_and_worth_another_look() -> None:
    few = look(metrics=metrics(Confusion(tp=2, fp=30, fn=33, tn=900)))
    assert (few.real, few.severity, few.may_be_worse) == (True, Severity.HIGH, True)
    many = look(metrics=metrics(Confusion(tp=10, fp=150, fn=190, tn=5000)))
    assert (many.severity, many.may_be_worse) == (Severity.CRITICAL, False)
    assert not look(metrics=metrics(FALLEN)).may_be_worse
