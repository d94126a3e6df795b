"""What kind of breach it is, and whether the model server is cut off for it."""

from __future__ import annotations

import pytest

from mlrunbook.domain.containment.breach import isolation, recognise, subtype_for
from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.incident import IncidentType, Severity, Subtype
from mlrunbook.domain.policy.changes import BreachPolicy

POLICY = BreachPolicy()
ALERT = ("ModelProbed", "", "80 near-duplicate requests")


@pytest.mark.parametrize(
    ("stated", "alert", "words", "expected"),
    [
        ([Subtype.DATA_LEAKAGE], ALERT, "", {"data_leakage", "adversarial_attack"}),
        ([], ("ModelProbed", "", ""), "a privacy breach", {"adversarial_attack"}),
        ([], ("TokenMisuse", "unauthorised_access", ""), "", {"unauthorised_access"}),
        ([], ("TokenMisuse", "UNAUTHORISED", ""), "", set()),
        ([], ("UnauthorizedAccess", "", ""), "", {"unauthorised_access"}),
        ([], ("DLP", "", "personal data of owners were exfiltrated"), "", {"data_leakage", "privacy_breach"}),
        ([], ("", "", ""), "The yearly audit found no model card", {"audit_failure"}),
        ([], ("", "", ""), "Non-compliant with the AI regulation", {"regulatory_violation"}),
        ([], ("", "", ""), "Something is odd", set()),
        ([], ("", "", ""), "The temperature probe of a machine is hot", set()),
    ],
)
def test_the_kind_is_what_people_and_alerts_name_and_else_what_their_words_say(
    stated: list[Subtype], alert: tuple[str, str, str], words: str, expected: set[str]
) -> None:
    assert recognise(stated, [alert], words, POLICY) == expected


@pytest.mark.parametrize("kind", list(Subtype))
def test_a_violation_and_a_failed_audit_are_for_people_to_isolate_and_the_rest_is_cut_off_at_once(kind: Subtype) -> None:
    at_once, why, _ = isolation(kind.type, {kind}, Severity.MEDIUM, POLICY)
    assert at_once is (kind not in (Subtype.REGULATORY_VIOLATION, Subtype.AUDIT_FAILURE))
    assert kind.words in why


def test_of_two_kinds_the_graver_decides() -> None:
    assert isolation(IncidentType.COMPLIANCE, {Subtype.AUDIT_FAILURE, Subtype.PRIVACY_BREACH}, Severity.HIGH, POLICY)[0]


def test_a_security_incident_of_an_unknown_kind_takes_the_most_cautious_course_and_a_compliance_question_does_not() -> None:
    assert isolation(IncidentType.SECURITY, set(), Severity.MEDIUM, POLICY)[0]
    assert not isolation(IncidentType.COMPLIANCE, set(), Severity.CRITICAL, POLICY)[0]


@pytest.mark.parametrize("kind", list(Subtype))
def test_what_its_reporter_calls_low_is_isolated_by_a_person_alone(kind: Subtype) -> None:
    assert not isolation(kind.type, {kind}, Severity.LOW, POLICY)[0]


def test_a_kind_of_another_type_is_refused_by_its_field() -> None:
    with pytest.raises(Invalid, match="privacy breach is an incident of type compliance, not security") as refused:
        subtype_for(IncidentType.SECURITY, Subtype.PRIVACY_BREACH)
    assert refused.value.field == "subtype"
