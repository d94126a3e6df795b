"""Links to the console: where they lead, where they stand in a message, and which addresses are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.communication import console_links

URL = "https://mlrunbook.example.com"


@given(st.text(), st.text())
def test_a_link_is_one_word_whatever_the_incident_and_the_plan_are_called(incident_id: str, digest: str) -> None:
    for path in (
        console_links.of_incident(incident_id.encode(errors="replace").decode()),
        console_links.of_decision("incident_5", digest.encode(errors="replace").decode()),
    ):
        found = console_links.link(URL, path)
        assert found is not None
        assert found.isascii()
        assert found.split() == [found]
        assert not set(found) & set("<>@|()[]*`&")


def test_the_link_stands_above_the_fold_and_nothing_else_changes() -> None:
    body = "Incident ID: incident_5\nSeverity: HIGH\n\nSummary:\n- F1 fell"
    linked = console_links.with_link(body, f"{URL}/incidents/incident_5")
    assert linked == f"Incident ID: incident_5\nSeverity: HIGH\nConsole: {URL}/incidents/incident_5\n\nSummary:\n- F1 fell"
    assert console_links.with_link(body, None) == body
    assert console_links.with_link("one line", URL) == f"one line\nConsole: {URL}"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://mlrunbook.example.com", "https://mlrunbook.example.com"),
        ("https://mlrunbook.example.com/", "https://mlrunbook.example.com"),
        ("http://127.0.0.1:8090", "http://127.0.0.1:8090"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
    ],
)
def test_an_address_of_the_console_is_kept_without_a_slash_at_its_end(given: str, kept: str) -> None:
    assert console_links.address(given) == kept


@pytest.mark.parametrize(
    "given",
    [
        *("mlrunbook.example.com", "ftp://mlrunbook.example.com", "https://", "https://user:secret@mlrunbook.example.com"),
        *("https://mlrunbook.example.com/?a=b", "https://mlrunbook.example.com/#x", "https://mlrunbook.example.com:99999"),
        *(
            "https://mlrunbook.example.com/ x",
            "https://mlrunbook.example.com\nBcc: all",
            "https://mlrunböök.example.com",
            "javascript:alert(1)",
        ),
        "https://mlrunbook.example.com/runbook",
    ],
)
def test_what_is_no_address_of_a_console_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="must"):
        console_links.address(given)
