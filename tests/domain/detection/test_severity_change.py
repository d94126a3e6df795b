from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.actions import Action, Configure, FlagWorkOrders, Restart, RollBack, RouteTraffic, Scale
from mlrunbook.domain.detection.severity import Assessment
from mlrunbook.domain.detection.severity_change import by_word, is_measured_as_it_was, risen
from mlrunbook.domain.incident import IncidentType, Severity

severities = st.sampled_from(Severity)


@given(current=severities, found=severities, more=severities, lowered_from=st.none() | severities)
def test_more_evidence_of_harm_never_lowers_the_severity(
    current: Severity, found: Severity, more: Severity, lowered_from: Severity | None
) -> None:
    less, most = sorted((found, more), key=lambda s: s.rank)
    assert risen(current, found, lowered_from).at_least(current)
    assert risen(current, most, lowered_from).at_least(risen(current, less, lowered_from))


def test_what_a_person_knew_of_when_lowering_it_does_not_raise_it_again_but_more_does() -> None:
    assert risen(Severity.MEDIUM, Severity.HIGH, lowered_from=Severity.HIGH) is Severity.MEDIUM
    assert risen(Severity.MEDIUM, Severity.CRITICAL, lowered_from=Severity.HIGH) is Severity.CRITICAL


def test_a_person_who_raises_it_is_taken_at_their_word() -> None:
    unproven = Assessment(True, Severity.MEDIUM, IncidentType.PREDICTION_ERROR, ("no measurement",), insufficient=True)
    said = by_word(unproven, Severity.CRITICAL, "the on-call raises it")
    assert (said.severity, said.insufficient, said.safety_risk) == (Severity.CRITICAL, False, True)
    assert said.reasons == ("the on-call raises it", "no measurement")


def test_lowering_it_says_nothing_about_the_danger() -> None:
    dangerous = Assessment(True, Severity.CRITICAL, IncidentType.PREDICTION_ERROR, ("all flagged",), dangerous=True, safety_risk=True)
    said = by_word(dangerous, Severity.HIGH, "the lead lowers it")
    assert (said.dangerous, said.safety_risk, said.severity) == (True, True, Severity.HIGH)


@pytest.mark.parametrize(
    ("action", "as_it_was"),
    [
        (Configure("m", {"human_approval": True}), True),
        (Configure("m", {"auto_scheduling": False}), True),
        (FlagWorkOrders("m", reason="check"), True),
        (Configure("m", {"threshold": 0.7}), False),
        (Scale("m", 0), False),
        (RouteTraffic("m", "v1"), False),
        (Restart("m", "r"), False),
        (RollBack("m", "v1", reason="r"), False),
    ],
)
def test_what_our_own_containment_changed_is_no_evidence_of_harm(action: Action, as_it_was: bool) -> None:
    assert is_measured_as_it_was([Configure("m", {"human_approval": True}), action]) is as_it_was
