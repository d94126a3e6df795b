"""Opening, joining and moving an incident along."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import Connection, Engine

from mlrunbook.domain.errors import Invalid, NotFound
from mlrunbook.domain.incident import TRANSITIONS, IncidentType, Severity, Status
from mlrunbook.store import incidents, records, timeline
from tests.fakes import MODEL, T0
from tests.store.conftest import report

WALK = {  # a shortest way to each status
    Status.DETECTED: (),
    Status.INVESTIGATING: (Status.INVESTIGATING,),
    Status.CONTAINED: (Status.INVESTIGATING, Status.CONTAINED),
    Status.RESOLVING: (Status.INVESTIGATING, Status.RESOLVING),
    Status.MONITORING: (Status.INVESTIGATING, Status.RESOLVING, Status.MONITORING),
    Status.RESOLVED: (Status.RESOLVED,),
    Status.CLOSED: (Status.RESOLVED, Status.CLOSED),
    Status.FALSE_ALARM: (Status.FALSE_ALARM,),
}


def move(conn: Connection, incident_id: str, *statuses: Status) -> None:
    for i, status in enumerate(statuses):
        incidents.set_status(conn, incident_id, status, why="test", actor="test", now=T0 + timedelta(minutes=i))


def test_twelve_reporters_at_once_open_one_incident(store: Engine) -> None:
    together = threading.Barrier(12)

    def one(_: int) -> tuple[str, bool]:
        with store.begin() as conn:
            together.wait()
            incident, is_new = incidents.open_or_join(conn, report(), now=T0)
            return incident.id, is_new

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(one, range(12)))
    assert len({incident_id for incident_id, _ in answers}) == 1
    assert sum(is_new for _, is_new in answers) == 1
    with store.begin() as conn:
        assert len(incidents.find(conn)) == 1
        assert [e.kind for e in timeline.read(conn, answers[0][0])] == ["detected"]


def test_another_model_or_another_failure_family_is_another_incident(conn: Connection) -> None:
    opened = [
        incidents.open_or_join(conn, told, now=T0)
        for told in (report(), report(family="security"), report(model="pump_wear"), report(model="pump_wear"))
    ]
    assert [is_new for _, is_new in opened] == [True, True, True, False]
    assert len({i.id for i, _ in opened}) == 3


@pytest.mark.parametrize("ending", [Status.CLOSED, Status.FALSE_ALARM])
def test_one_that_is_over_does_not_stand_in_the_way_of_a_new_one(conn: Connection, incident_id: str, ending: Status) -> None:
    move(conn, incident_id, *WALK[ending])
    fresh, is_new = incidents.open_or_join(conn, report(), now=T0)
    assert is_new
    assert fresh.id != incident_id
    assert [i.id for i in incidents.find(conn, model=MODEL, only_open=True)] == [fresh.id]


@pytest.mark.parametrize(("at", "to"), itertools.product(Status, Status))
def test_an_incident_moves_only_along_the_runbooks_path(conn: Connection, incident_id: str, at: Status, to: Status) -> None:
    move(conn, incident_id, *WALK[at])
    entries = len(timeline.read(conn, incident_id))
    if to is at:
        move(conn, incident_id, to)
        assert len(timeline.read(conn, incident_id)) == entries, "staying put writes nothing"
    elif to in TRANSITIONS[at]:
        move(conn, incident_id, to)
        assert incidents.get(conn, incident_id).status is to
        assert timeline.read(conn, incident_id)[-1].data == {"to": to.value}
    else:
        with pytest.raises(Invalid, match=f"cannot become {to}"):
            move(conn, incident_id, to)
        assert incidents.get(conn, incident_id).status is at


def test_the_times_of_containment_and_end_are_kept(conn: Connection, incident_id: str) -> None:
    move(conn, incident_id, Status.INVESTIGATING, Status.CONTAINED, Status.INVESTIGATING, Status.CONTAINED, Status.RESOLVED, Status.CLOSED)
    incident = incidents.get(conn, incident_id)
    assert incident.contained_at == T0 + timedelta(minutes=1), "the first containment counts"
    assert incident.resolved_at == T0 + timedelta(minutes=4)
    assert incident.closed_at == T0 + timedelta(minutes=5)


def test_a_new_severity_says_why_and_what_it_was(conn: Connection, incident_id: str) -> None:
    judged = incidents.Classification(Severity.CRITICAL, IncidentType.PREDICTION_ERROR)
    found = incidents.classify(conn, incident_id, judged, why="all flagged", actor="mlrunbook", now=T0)
    assert (found.severity, found.type) == (Severity.CRITICAL, IncidentType.PREDICTION_ERROR)
    said = timeline.read(conn, incident_id)[-1]
    assert "CRITICAL" in said.text
    assert "all flagged" in said.text
    assert said.data["from"] == "medium"


def test_the_first_acknowledgement_counts_and_the_next_is_a_hand_over(conn: Connection, incident_id: str) -> None:
    incidents.acknowledge(conn, incident_id, by="the lead", now=T0 + timedelta(minutes=3))
    incidents.acknowledge(conn, incident_id, by="the lead", now=T0 + timedelta(minutes=4))
    incident = incidents.acknowledge(conn, incident_id, by="on call", now=T0 + timedelta(minutes=9))
    assert (incident.acknowledged_at, incident.acknowledged_by) == (T0 + timedelta(minutes=3), "on call")
    assert [e.text for e in timeline.read(conn, incident_id) if e.kind == "acknowledged"] == [
        "Acknowledged by the lead",
        "Handed over from the lead to on call",
    ]


def test_an_unknown_incident_is_not_found(conn: Connection) -> None:
    with pytest.raises(NotFound, match="incident_0"):
        incidents.get(conn, "incident_0")
    with pytest.raises(NotFound, match="incident_0"):
        timeline.append(conn, "incident_0", "note", "hello", actor="test", at=T0)


def test_a_step_is_recorded_once_and_runs_again_when_forgotten(conn: Connection, incident_id: str) -> None:
    assert records.put(conn, incident_id, "triage", {"real": True, "at": T0}, now=T0)["real"] is True
    assert records.put(conn, incident_id, "triage", {"real": False}, now=T0) == {"real": True, "at": str(T0)}
    assert records.get(conn, incident_id, "triage") == {"real": True, "at": str(T0)}
    records.forget(conn, incident_id, "triage")
    assert records.get(conn, incident_id, "triage") is None


def test_records_are_found_by_their_exact_prefix(conn: Connection, incident_id: str) -> None:
    for step in ("findings:a", "findings:b", "findings_c", "finding%"):
        records.put(conn, incident_id, step, {"step": step}, now=T0)
    assert set(records.with_prefix(conn, incident_id, "findings:")) == {"findings:a", "findings:b"}
