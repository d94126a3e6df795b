"""Everything that must happen at or after a time, tried until it is delivered or cancelled."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, select

from mlrunbook.domain.incident import Severity
from mlrunbook.store import incidents, outbox, tables
from tests.fakes import T0
from tests.store.conftest import report


def after(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def put(conn: Connection, key: str = "page:1", *, at: datetime | None = None, incident_id: str | None = None, kind: str = "page") -> bool:
    return outbox.put(conn, kind, key, {"to": "on-call"}, now=T0, at=at, incident_id=incident_id)


def keys(items: list[outbox.Item]) -> list[str]:
    return [i.dedup_key for i in items]


def test_a_row_is_put_once_whatever_became_of_it(conn: Connection) -> None:
    assert put(conn)
    assert not put(conn)
    [item] = outbox.claim(conn, now=T0)
    outbox.delivered(conn, item, now=T0)
    assert not put(conn)
    assert outbox.claim(conn, now=after(3600)) == []


def test_nothing_goes_out_before_its_time_and_the_earliest_goes_first(conn: Connection) -> None:
    put(conn, "late", at=after(60))
    put(conn, "soon", at=after(30))
    assert outbox.claim(conn, now=after(29)) == []
    assert keys(outbox.claim(conn, now=after(60), limit=1)) == ["soon"]
    assert keys(outbox.claim(conn, now=after(60))) == ["late"]


def test_what_a_critical_incident_waits_for_goes_out_before_a_storm_of_others(conn: Connection) -> None:
    others = incidents.open_or_join(conn, report(model="pump"), now=T0)[0].id
    critical = incidents.open_or_join(conn, replace(report(model="turbine"), severity=Severity.CRITICAL), now=T0)[0].id
    for n in range(30):
        put(conn, f"other:{n}", incident_id=others)
    put(conn, "critical", at=after(60), incident_id=critical)
    assert keys(outbox.claim(conn, now=after(59), limit=2)) == ["other:0", "other:1"]
    assert keys(outbox.claim(conn, now=after(60), limit=2)) == ["other:2", "critical"]
    assert keys(outbox.claim(conn, now=after(60), limit=1)) == ["other:3"]


def test_two_dispatchers_never_claim_the_same_row(store: Engine) -> None:
    with store.begin() as conn:
        for n in range(60):
            put(conn, f"page:{n}")
    together = threading.Barrier(4)

    def dispatcher(_: int) -> list[str]:
        mine: list[str] = []
        together.wait()
        while True:
            with store.begin() as conn:
                items = outbox.claim(conn, now=T0, limit=5)
            if not items:
                return mine
            mine += keys(items)

    with ThreadPoolExecutor(4) as pool:
        claimed = [key for part in pool.map(dispatcher, range(4)) for key in part]
    assert len(claimed) == len(set(claimed))
    with store.begin() as conn:  # SKIP LOCKED may end a dispatcher early; what it skipped is still there
        claimed += keys(outbox.claim(conn, now=T0, limit=60))
    assert sorted(claimed) == sorted(f"page:{n}" for n in range(60))


def test_a_row_that_another_dispatcher_is_claiming_is_not_waited_for(store: Engine) -> None:
    with store.begin() as conn:
        put(conn)
    with store.begin() as first, store.begin() as second:
        assert len(outbox.claim(first, now=T0)) == 1
        assert outbox.claim(second, now=T0) == []


def test_a_claim_expires_so_that_a_dead_dispatcher_loses_nothing(conn: Connection) -> None:
    for kind, claim_s in (("message", outbox.CLAIM_S), ("page", outbox.CLAIM_OF_PAGES_S)):
        outbox.put(conn, kind, f"{kind}:1", {}, now=T0)
        [item] = outbox.claim(conn, now=T0, kinds=(kind,))
        assert outbox.claim(conn, now=after(claim_s - 1), kinds=(kind,)) == []
        [again] = outbox.claim(conn, now=after(claim_s + 1), kinds=(kind,))
        assert (again.id, again.attempts) == (item.id, 2)


def test_a_row_is_tried_after_1_2_4_up_to_60_seconds_for_ever(conn: Connection, incident_id: str) -> None:
    put(conn, incident_id=incident_id)
    now, waits = T0, []
    for _ in range(12):
        [item] = outbox.claim(conn, now=now)
        outbox.failed(conn, item, "the channel does not answer", now=now)
        [row] = outbox.of_incident(conn, incident_id)
        wait = (row["not_before"] - now).total_seconds()
        waits.append(wait)
        now += timedelta(seconds=wait)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60]


def test_what_was_cancelled_never_goes_out(conn: Connection, incident_id: str) -> None:
    put(conn, "page:a", incident_id=incident_id)
    put(conn, "page:b", incident_id=incident_id, at=after(1800))
    put(conn, "message:c", incident_id=incident_id, kind="message")
    [claimed, other] = outbox.claim(conn, now=T0)
    outbox.failed(conn, claimed, "no answer", now=T0)
    outbox.delivered(conn, other, now=T0)
    assert outbox.cancel(conn, now=after(1), incident_id=incident_id, kinds=("page",)) == 2
    outbox.reschedule(conn, "page:b", after(2), now=after(2))
    assert outbox.claim(conn, now=after(86_400)) == []


def test_cancelling_by_prefix_takes_the_prefix_at_its_word(conn: Connection, incident_id: str) -> None:
    for key in ("page:ml_team_lead:x", "page:mlXteam_lead:x", "page:ml_team_lead2:x"):
        put(conn, key, incident_id=incident_id)
    assert outbox.cancel(conn, now=T0, incident_id=incident_id, key_prefix="page:ml_team_lead:") == 1
    assert set(keys(outbox.claim(conn, now=T0))) == {"page:mlXteam_lead:x", "page:ml_team_lead2:x"}


def test_another_incidents_rows_are_left_alone(conn: Connection, incident_id: str) -> None:
    put(conn, "page:of nobody")
    assert outbox.cancel(conn, now=T0, incident_id=incident_id) == 0
    assert keys(outbox.claim(conn, now=T0)) == ["page:of nobody"]


@pytest.mark.parametrize("delivered", [False, True])
def test_a_row_that_waits_is_moved_and_told_anew_and_one_that_is_out_is_not(conn: Connection, delivered: bool) -> None:
    put(conn)
    if delivered:
        [item] = outbox.claim(conn, now=T0)
        outbox.delivered(conn, item, now=T0)
    outbox.reschedule(conn, "page:1", after(60), {"to": "the lead"}, now=T0)
    assert outbox.claim(conn, now=after(59)) == []
    assert [i.payload["to"] for i in outbox.claim(conn, now=after(61))] == ([] if delivered else ["the lead"])


def test_a_row_says_what_it_failed_with(conn: Connection, incident_id: str) -> None:
    put(conn, incident_id=incident_id)
    [item] = outbox.claim(conn, now=T0)
    outbox.failed(conn, item, "no answer " * 200, now=T0)
    [row] = outbox.of_incident(conn, incident_id)
    assert row["last_error"].startswith("no answer")
    assert len(row["last_error"]) == 500
    assert row["delivered_at"] is None


@pytest.mark.parametrize("failures", [0, 1, 2, 3, 8, 12])
def test_how_long_a_page_has_waited_is_known_after_any_number_of_failed_tries(conn: Connection, failures: int) -> None:
    """Each try is at once when it is due and fails at once: what has waited is the time since the page was due first."""
    put(conn, "scheduled", at=after(3600))  # an escalation is put long before it is due
    assert outbox.oldest_due(conn, "page", now=after(3599)) is None
    now = after(3600)
    for _ in range(failures):
        [item] = outbox.claim(conn, now=now)
        assert outbox.oldest_due(conn, "page", now=now) == after(3600), "also while it is being tried"
        outbox.failed(conn, item, "nobody answers", now=now)
        now = conn.execute(select(tables.outbox.c.not_before)).scalar_one()
        assert outbox.oldest_due(conn, "page", now=now) == after(3600)
    assert outbox.oldest_due(conn, "message", now=now) is None
    [item] = outbox.claim(conn, now=now)
    outbox.delivered(conn, item, now=now)
    assert outbox.oldest_due(conn, "page", now=now) is None


def test_the_page_that_has_waited_longest_counts_and_a_cancelled_one_does_not(conn: Connection, incident_id: str) -> None:
    put(conn, "first", at=after(10), incident_id=incident_id)
    put(conn, "second", at=after(20))
    assert outbox.oldest_due(conn, "page", now=after(60)) == after(10)
    outbox.cancel(conn, now=after(60), incident_id=incident_id)
    assert outbox.oldest_due(conn, "page", now=after(60)) == after(20)
