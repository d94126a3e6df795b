"""What triage makes of a model that answers no yes or no, by `assess`."""

from __future__ import annotations

import pytest

from mlrunbook.domain.detection.severity import AlertSignal, Assessment, Claims, Measurements, assess
from mlrunbook.domain.evaluation.performance import ModelMetrics
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.policy.judging import SeverityPolicy
from tests.domain.builders import status
from tests.domain.other_tasks import DROPS, AbsoluteErrors, errors, metrics

POLICY = SeverityPolicy(drops=DROPS)
BEFORE = errors(1, 20_000)
WORSE = AlertSignal("ModelF1Drop", "critical", IncidentType.PERFORMANCE_DEGRADATION)


def look(seen: ModelMetrics, *alerts: AlertSignal, kind: IncidentType | None = None, final_look: bool = False) -> Assessment:
    return assess(Claims(None, kind, alerts or (WORSE,)), Measurements(seen, status()), POLICY, final_look=final_look)


@pytest.mark.parametrize(("mae", "severity"), [(4.7, Severity.MEDIUM), (6.0, Severity.HIGH)])
def test_an_error_that_rose_is_a_real_incident_of_performance(mae: float, severity: Severity) -> None:
    found = look(metrics(BEFORE, errors(2, 10_000, mae=mae)))
    assert (found.real, found.severity, found.type) == (True, severity, IncidentType.PERFORMANCE_DEGRADATION)
    assert found.reasons[0].startswith("MAE rose ")
    assert not (found.dangerous)
    assert not (found.safety_risk)
    assert not (found.excessive_false_positives)
    assert not (found.insufficient)


def test_an_alert_that_the_error_refutes_is_a_false_alarm() -> None:
    found = look(metrics(BEFORE, errors(2, 10_000)))
    assert found.real is False
    assert "MAE" in found.reasons[0]


def test_on_few_outcomes_triage_looks_again_and_then_takes_the_alert_at_its_word_without_changes() -> None:
    seen = metrics(BEFORE, [AbsoluteErrors(1, 9.0)] * 20)
    assert look(seen).real is None
    last = look(seen, final_look=True)
    assert (last.real, last.insufficient) == (True, True)


def test_a_report_of_unfairness_is_not_refuted_by_groups_that_have_no_f1() -> None:
    types = {"pump": AbsoluteErrors(5000, 20_000.0), "press": AbsoluteErrors(5000, 20_000.0)}
    found = look(metrics(BEFORE, errors(2, 10_000), by_asset_type=types), kind=IncidentType.BIAS_FAIRNESS, final_look=True)
    assert found.real is not None
