"""One run carries an incident; a run that lost its lease can write nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine

from mlrunbook.base.clocks import Elapsed
from mlrunbook.domain.errors import Fenced, NotFound
from mlrunbook.response.run import Run
from mlrunbook.store import incidents, leases, outbox, records, timeline
from tests.fakes import Clock, FileWorld, world_of

T0 = Clock().at
LEASE_S = 30.0


def after(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def at(awake_s: float, boot: str = "this boot") -> Elapsed:
    """A machine that has slept for a day."""
    return Elapsed(boot, awake_s + 86_400, awake_s)


def take(conn: Connection, incident_id: str, holder: str, awake_s: float = 0.0) -> leases.Lease | None:
    return leases.take(conn, incident_id, holder, here=at(awake_s), lease_s=LEASE_S)


def taken(conn: Connection, incident_id: str, holder: str, awake_s: float = 0.0) -> leases.Lease:
    lease = take(conn, incident_id, holder, awake_s)
    assert lease is not None
    return lease


def starts(conn: Connection, incident_id: str, kind: str = "start_run") -> list[dict[str, Any]]:
    return [r for r in outbox.of_incident(conn, incident_id, kind) if r["cancelled_at"] is None]


def test_a_free_lease_is_taken_and_a_living_run_keeps_it(conn: Connection, incident_id: str) -> None:
    lease = taken(conn, incident_id, "run-1")
    assert (lease.holder, lease.state, lease.generation, lease.silent_after_s) == ("run-1", "running", 1, LEASE_S)
    assert take(conn, incident_id, "run-2") is None
    assert taken(conn, incident_id, "run-1").generation == 1, "the same run may take it again"


def test_of_many_runs_at_once_one_gets_it(store: Engine, incident_id: str) -> None:
    def one(n: int) -> bool:
        with store.begin() as conn:
            return take(conn, incident_id, f"run-{n}") is not None

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(one, range(8))) == 1


def silent(conn: Connection, awake_s: float, boot: str = "this boot") -> list[str]:
    """What a dispatcher that looks now finds silent."""
    leases.look(conn, at(awake_s, boot))
    return [lease.incident_id for lease in leases.silent(conn, at(awake_s, boot))]


def test_a_run_that_shows_signs_of_life_is_never_silent_and_one_that_stops_is_after_its_lease(conn: Connection, incident_id: str) -> None:
    lease = taken(conn, incident_id, "run-1")
    assert silent(conn, 0) == []
    for beat in range(1, 10):
        assert leases.renew(conn, lease, here=at(beat * (LEASE_S - 1)), lease_s=LEASE_S)
        assert silent(conn, beat * (LEASE_S - 1)) == []
        assert take(conn, incident_id, "run-2", beat * (LEASE_S - 1)) is None
    assert silent(conn, 9 * (LEASE_S - 1) + LEASE_S - 1) == []
    assert silent(conn, 9 * (LEASE_S - 1) + LEASE_S + 1) == [incident_id]


def test_each_machine_counts_by_its_own_seconds(conn: Connection, incident_id: str) -> None:
    """Their boots are years apart, and one of them looks for the first time."""
    taken(conn, incident_id, "run-1")
    assert silent(conn, 1_000_000, "old machine") == []
    assert silent(conn, 5, "new machine") == []
    assert silent(conn, 1_000_000 + LEASE_S + 1, "old machine") == [incident_id]
    assert silent(conn, 5 + LEASE_S - 1, "new machine") == []
    assert silent(conn, 5 + LEASE_S + 1, "new machine") == [incident_id]


@pytest.mark.parametrize("asked_for", [True, False])
def test_the_run_after_a_silent_one_is_of_the_next_generation_and_the_old_run_is_fenced(
    conn: Connection, incident_id: str, asked_for: bool
) -> None:
    old = taken(conn, incident_id, "run-1")
    if asked_for:
        leases.request_start(conn, incident_id, why="went silent", now=T0)
    new = taken(conn, incident_id, "run-2", 0 if asked_for else LEASE_S + 1)
    assert new.generation == old.generation + 1
    assert incidents.get(conn, incident_id).generation == new.generation
    leases.check(conn, new)
    with pytest.raises(Fenced, match=r"run-1 .* was replaced by run-2 \(generation 2\)"):
        leases.check(conn, old)
    assert not leases.renew(conn, old, here=at(60), lease_s=LEASE_S)


def test_the_lease_of_a_run_that_waits_for_a_human_is_not_stolen(conn: Connection, incident_id: str) -> None:
    lease = taken(conn, incident_id, "run-1")
    leases.release(conn, lease, "waiting", now=T0, look_again_s=60)
    assert take(conn, incident_id, "run-2") is None
    back = taken(conn, incident_id, "run-1")
    assert (back.generation, back.state) == (1, "running")


def test_when_nothing_is_left_to_do_nobody_gets_it(conn: Connection, incident_id: str) -> None:
    leases.release(conn, taken(conn, incident_id, "run-1"), "done", now=T0)
    assert take(conn, incident_id, "run-1") is None
    assert take(conn, incident_id, "run-2") is None


def test_a_stale_generation_cannot_write_anything(store: Engine, incident_id: str, tmp_path: Path) -> None:
    clock = Clock()
    world = world_of(store, FileWorld(tmp_path / "world.json", clock), clock)
    with world.transaction() as conn:
        run = Run(world, taken(conn, incident_id, "run-1"))
    with run.write() as conn:
        records.put(conn, incident_id, "before", {"written": True}, now=T0)
    with world.transaction() as conn:
        leases.request_start(conn, incident_id, why="test", now=T0)
        entries = len(timeline.read(conn, incident_id))

    def write() -> None:
        with run.write() as conn:
            records.put(conn, incident_id, "after", {"written": True}, now=T0)
            run.note(conn, "note", "written")

    with pytest.raises(Fenced):
        write()
    with pytest.raises(Fenced), world.transaction() as conn:
        leases.release(conn, run.lease, "done", now=T0)
    with world.transaction() as conn:
        assert records.get(conn, incident_id, "before") == {"written": True}
        assert records.get(conn, incident_id, "after") is None
        assert len(timeline.read(conn, incident_id)) == entries


def test_the_first_start_is_generation_one_and_every_further_one_the_next(conn: Connection, incident_id: str) -> None:
    assert leases.request_start(conn, incident_id, why="opened", now=T0) == 1
    assert [r["dedup_key"] for r in starts(conn, incident_id)] == [f"start:{incident_id}:1"]
    taken(conn, incident_id, "run-1")
    assert leases.request_start(conn, incident_id, why="went silent", now=after(60)) == 2
    assert incidents.get(conn, incident_id).generation == 2
    lease = leases.get(conn, incident_id)
    assert (lease.state, lease.holder, lease.generation, lease.silent_after_s) == ("starting", None, 2, None)
    assert taken(conn, incident_id, "run-2").generation == 2


def test_a_start_that_prefect_has_accepted_is_waited_for_and_counted_once(conn: Connection, incident_id: str) -> None:
    leases.request_start(conn, incident_id, why="opened", now=T0)
    assert silent(conn, 0) == silent(conn, 86_400) == [], "while Prefect is down the outbox row waits, not the reconciler"
    leases.started(conn, incident_id, 1)
    assert silent(conn, 90_000) == []
    assert silent(conn, 90_000 + leases.START_GRACE_S - 1) == []
    assert silent(conn, 90_000 + leases.START_GRACE_S + 1) == [incident_id]
    leases.request_start(conn, incident_id, why="never came", now=after(61))
    leases.started(conn, incident_id, 1)
    assert leases.get(conn, incident_id).silent_after_s is None, "an answer about an older generation changes nothing"


def test_a_nudge_starts_a_free_incident(conn: Connection, incident_id: str) -> None:
    leases.wake(conn, incident_id, why="the lead approved", key="approval-1", now=T0)
    assert len(starts(conn, incident_id)) == 1
    assert leases.get(conn, incident_id).state == "starting"


def test_a_nudge_brings_a_scheduled_start_forward(conn: Connection, incident_id: str) -> None:
    leases.request_start(conn, incident_id, why="look again", now=T0, at=after(600))
    leases.wake(conn, incident_id, why="the lead approved", key="approval-1", now=after(5))
    [row] = starts(conn, incident_id)
    assert row["not_before"] == after(5)


def test_a_nudge_resumes_the_run_that_waits_once(conn: Connection, incident_id: str) -> None:
    leases.release(conn, taken(conn, incident_id, "run-1"), "waiting", now=T0, look_again_s=60)
    for _ in range(2):
        leases.wake(conn, incident_id, why="the lead approved", key="approval-1", now=T0)
    assert [r["dedup_key"] for r in starts(conn, incident_id, "resume_run")] == [f"resume:{incident_id}:approval-1"]
    assert starts(conn, incident_id) == []


@pytest.mark.parametrize("state", ["running", "done"])
def test_a_nudge_leaves_a_run_that_reads_by_itself_or_is_over_alone(conn: Connection, incident_id: str, state: str) -> None:
    lease = taken(conn, incident_id, "run-1")
    if state == "done":
        leases.release(conn, lease, "done", now=T0)
    before = leases.get(conn, incident_id)
    leases.wake(conn, incident_id, why="the lead approved", key="approval-1", now=T0)
    assert leases.get(conn, incident_id) == before
    assert outbox.of_incident(conn, incident_id, "start_run", "resume_run") == []


def test_the_lease_of_no_incident_is_not_found(conn: Connection) -> None:
    with pytest.raises(NotFound, match="incident_0"):
        take(conn, "incident_0", "run-1")
