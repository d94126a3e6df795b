"""While outcomes do not arrive, performance is neither called fallen nor fine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlrunbook.domain.detection.severity import AlertSignal
from mlrunbook.domain.evaluation.performance import Confusion
from mlrunbook.domain.incident import IncidentType, Severity
from tests.domain.builders import FALLEN, HEALTHY, assessed, metrics, status

MISSING = AlertSignal("OutcomesMissing", "warning", IncidentType.INFRASTRUCTURE)
F1_DROP = AlertSignal("ModelF1Drop", "critical", IncidentType.PERFORMANCE_DEGRADATION)
PROBED = AlertSignal("ModelProbed", "critical", IncidentType.SECURITY)


@pytest.mark.parametrize("known", [HEALTHY, FALLEN])
@pytest.mark.parametrize("alert", [MISSING, F1_DROP])
def test_missing_outcomes_are_a_medium_failure_of_the_infrastructure_whatever_f1_is_on_the_rest(
    known: Confusion, alert: AlertSignal
) -> None:
    stalled = metrics(known, outcomes_due=3000, outcomes_missing=2500)
    found = assessed(alerts=(alert,), metrics=stalled, status=status())
    assert (found.real, found.severity, found.type) == (True, Severity.MEDIUM, IncidentType.INFRASTRUCTURE)
    assert "performance is not known, neither bad nor good" in found.reasons[0]
    assert not any("F1" in reason for reason in found.reasons)


def test_outcomes_that_arrive_after_all_make_it_a_false_alarm() -> None:
    flowing = metrics(HEALTHY, outcomes_due=3000, outcomes_missing=30)
    found = assessed(alerts=(MISSING,), metrics=flowing, status=status())
    assert found.real is False
    assert "outcomes arrive" in found.reasons[0]


def test_whether_outcomes_arrive_is_looked_at_again_while_nobody_can_tell() -> None:
    found = assessed(alerts=(MISSING,), metrics=metrics(HEALTHY), status=status())
    assert found.real is None


def test_a_model_that_flags_every_asset_is_critical_without_any_outcome() -> None:
    stalled = metrics(Confusion(), predictions=500, flagged_share=0.97, outcomes_due=500, outcomes_missing=500)
    found = assessed(alerts=(MISSING,), metrics=stalled, status=status())
    assert (found.severity, found.dangerous) == (Severity.CRITICAL, True)


def test_probing_is_a_security_incident_that_no_metric_refutes() -> None:
    found = assessed(alerts=(PROBED,), metrics=metrics(HEALTHY), status=status())
    assert (found.real, found.severity, found.type) == (True, Severity.HIGH, IncidentType.SECURITY)
    assert found.insufficient, "nothing is changed automatically"


@pytest.mark.parametrize(("times", "again", "severity"), [(1, True, Severity.MEDIUM), (5, False, Severity.HIGH)])
def test_a_group_that_seems_to_have_fallen_far_is_looked_at_again_before_it_settles_on_medium(
    times: int, again: bool, severity: Severity
) -> None:
    before = {"L": Confusion(tp=600, fp=60, fn=60, tn=10_000), "H": Confusion(tp=170, fp=30, fn=60, tn=2_000)}
    now = {
        "L": Confusion(tp=60 * times, fp=6 * times, fn=6 * times, tn=1_000 * times),
        "H": Confusion(tp=15 * times, fp=3 * times, fn=22 * times, tn=200 * times),
    }
    seen = metrics(HEALTHY)
    seen = replace(seen, current=replace(seen.current, by_asset_type=now), baseline=replace(seen.baseline, by_asset_type=before))
    gap = AlertSignal("FairnessGap", "warning", IncidentType.BIAS_FAIRNESS)
    found = assessed(alerts=(gap,), metrics=seen, status=status())
    assert (found.type, found.severity, found.may_be_worse) == (IncidentType.BIAS_FAIRNESS, severity, again)
