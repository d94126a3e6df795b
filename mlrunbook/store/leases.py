"""Which run carries an incident. One lease an incident; a run that lost it is fenced off at its next write.

States: free (nobody should run it now), starting (a run is on its way), running, waiting (suspended for a human), done.
A generation is one attempt at the whole runbook: the run that follows one that went silent is of the next.

No clock says that a run has died: each sign of life raises `renewals`, and who looks on counts, by its own machine's seconds awake, how
long that has stood still. Neither a clock that is set nor two that differ take a lease from a living run, or keep a dead one's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, literal, or_, select, true, update
from sqlalchemy.dialects.postgresql import insert

from mlrunbook.domain.elapsed import Elapsed
from mlrunbook.domain.errors import Fenced, NotFound
from mlrunbook.store import incidents as incident_rows
from mlrunbook.store import outbox
from mlrunbook.store.tables import incidents, lease_looks, leases

WATCHED = ("starting", "running", "waiting")
START_GRACE_S = 60.0  # from "Prefect has the run" to its first line: about 3 s when idle, longer on a busy machine


@dataclass(frozen=True)
class Lease:
    incident_id: str
    generation: int
    holder: str | None
    state: str
    renewals: int
    silent_after_s: float | None


def start_key(incident_id: str, generation: int) -> str:
    """The outbox key of one generation's start."""
    return f"start:{incident_id}:{generation}"


def get(conn: Connection, incident_id: str, *, lock: bool = False) -> Lease:
    """With `lock`, the incident's row is locked first and the lease's second: the order every writer uses."""
    query = select(leases).where(leases.c.incident_id == incident_id)
    if lock:
        conn.execute(select(incidents.c.id).where(incidents.c.id == incident_id).with_for_update())
        query = query.with_for_update()
    row = conn.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"there is no incident {incident_id!r}; list them with `mlrunbook incidents list`")
    return _lease(row)


def take(conn: Connection, incident_id: str, holder: str, *, here: Elapsed, lease_s: float) -> Lease | None:
    """Become the run of this incident, or None when a living run has it or there is nothing left to do. That another has died is what this
    machine has seen: on one that has never looked the reconciler finds it out."""
    lease = get(conn, incident_id, lock=True)
    if lease.state == "done":
        return None
    generation = lease.generation
    if lease.holder not in (None, holder):
        if lease.state == "waiting" or not silent(conn, here, incident_id):
            return None
        generation += 1
        incident_rows.set_generation(conn, incident_id, generation)
    _set(conn, incident_id, generation=generation, holder=holder, state="running", silent_after_s=lease_s, again=False)
    look(conn, here, incident_id)
    return get(conn, incident_id)


def renew(conn: Connection, lease: Lease, *, here: Elapsed, lease_s: float) -> bool:
    """Still alive. False when the lease is no longer ours."""
    ours = (leases.c.holder == lease.holder) & (leases.c.generation == lease.generation) & (leases.c.state == "running")
    is_ours = _alive(conn, lease.incident_id, ours, silent_after_s=lease_s)
    look(conn, here, lease.incident_id)
    return is_ours


def check(conn: Connection, lease: Lease) -> None:
    """Raise Fenced unless `lease` is the current one. Call inside every transaction that a run writes in."""
    now_held = get(conn, lease.incident_id, lock=True)
    if (now_held.holder, now_held.generation) != (lease.holder, lease.generation):
        raise Fenced(f"run {lease.holder} of {lease.incident_id} was replaced by {now_held.holder} (generation {now_held.generation})")


def release(conn: Connection, lease: Lease, state: str, *, now: datetime, look_again_s: float | None = None) -> None:
    """The run stops here: `waiting` keeps it as the one to resume, `free` and `done` let it end.

    A waiting lease is watched too: the reconciler then looks whether the run really is suspended. Where somebody acted while
    the run was at work (`wake`), it is resumed or started again at once.
    """
    check(conn, lease)
    again = conn.execute(select(leases.c.again).where(leases.c.incident_id == lease.incident_id)).scalar_one()
    holder = lease.holder if state == "waiting" else None
    _set(conn, lease.incident_id, generation=lease.generation, holder=holder, state=state, silent_after_s=look_again_s, again=False)
    if again and state != "done":
        key = f"again-{lease.generation}-{now.isoformat()}"
        wake(conn, lease.incident_id, why="somebody acted while the run was at work", key=key, now=now)


def expect(conn: Connection, incident_id: str) -> None:
    """The caller is the run and takes the lease next; if it dies before that, the reconciler starts another."""
    _set(conn, incident_id, state="starting", silent_after_s=START_GRACE_S)


def request_start(conn: Connection, incident_id: str, *, why: str, now: datetime, at: datetime | None = None) -> int:
    """Ask the dispatcher for a run of the next generation (the first start keeps generation 1). Fences off a run that is still there."""
    lease = get(conn, incident_id, lock=True)
    generation = lease.generation + (lease.holder is not None)
    while not outbox.put(
        conn,
        "start_run",
        start_key(incident_id, generation),
        {"generation": generation, "why": why},
        now=now,
        incident_id=incident_id,
        at=at,
    ):
        generation += 1
    incident_rows.set_generation(conn, incident_id, generation)
    # Not watched until Prefect has accepted the run: while Prefect is down the outbox row is what waits.
    _set(conn, incident_id, generation=generation, holder=None, state="starting", silent_after_s=None)
    return generation


def wake(conn: Connection, incident_id: str, *, why: str, key: str, now: datetime) -> None:
    """Something a human did lets the incident go on: resume or start its run. One at work looks once more before it stops.

    Call in the transaction that records what the human did.
    """
    lease = get(conn, incident_id, lock=True)
    if lease.state == "free":
        request_start(conn, incident_id, why=why, now=now)
    elif lease.state == "waiting":
        outbox.put(conn, "resume_run", f"resume:{incident_id}:{key}", {"why": why}, now=now, incident_id=incident_id)
    elif lease.state == "starting":  # perhaps scheduled for later: it is wanted now. Or it queues in Prefect, and is more urgent now
        outbox.reschedule(conn, start_key(incident_id, lease.generation), now, now=now)
        if outbox.is_delivered(conn, start_key(incident_id, lease.generation)):
            outbox.put(conn, "resume_run", f"resume:{incident_id}:{key}", {"why": why}, now=now, incident_id=incident_id)
    elif lease.state == "running":
        conn.execute(update(leases).where(leases.c.incident_id == incident_id).values(again=True))  # no sign of life of the run


def preempt(conn: Connection, incident_id: str, *, why: str, now: datetime) -> None:
    """Go on from the top, now: also in the place of a run that is in the middle of something long. The journal makes it safe: nothing is
    applied twice."""
    if get(conn, incident_id, lock=True).state == "running":
        request_start(conn, incident_id, why=why, now=now)
    else:
        wake(conn, incident_id, why=why, key=f"again-{now.isoformat()}", now=now)


def started(conn: Connection, incident_id: str, generation: int) -> None:
    """Prefect has the run: from here the reconciler counts."""
    get(conn, incident_id, lock=True)
    asked_for = (leases.c.generation == generation) & (leases.c.state == "starting") & leases.c.holder.is_(None)
    _alive(conn, incident_id, asked_for, silent_after_s=START_GRACE_S)


def resumed(conn: Connection, lease: Lease) -> None:
    """A suspended run is on its way back."""
    get(conn, lease.incident_id, lock=True)
    parked = (leases.c.holder == lease.holder) & (leases.c.state == "waiting")
    _alive(conn, lease.incident_id, parked, state="running", silent_after_s=START_GRACE_S)


def look_later(conn: Connection, lease: Lease, *, after_s: float) -> None:
    get(conn, lease.incident_id, lock=True)
    as_it_was = (leases.c.generation == lease.generation) & (leases.c.state == lease.state)
    _alive(conn, lease.incident_id, as_it_was, silent_after_s=after_s)


def look(conn: Connection, here: Elapsed, incident_id: str | None = None) -> None:
    """Note what has moved since this machine looked last. Kept in the store: a dispatcher that starts again goes on counting."""
    mine = (lease_looks.c.incident_id == leases.c.incident_id) & (lease_looks.c.boot == here.boot)
    moved = (
        select(literal(here.boot), leases.c.incident_id, leases.c.renewals, literal(here.awake_s))
        .select_from(leases.outerjoin(lease_looks, mine))
        .where(_watched(incident_id), or_(lease_looks.c.boot.is_(None), lease_looks.c.renewals != leases.c.renewals))
    )
    row = insert(lease_looks).from_select(["boot", "incident_id", "renewals", "since_s"], moved)
    newer = {"renewals": row.excluded.renewals, "since_s": row.excluded.since_s}
    is_newer = lease_looks.c.renewals < row.excluded.renewals
    conn.execute(row.on_conflict_do_update(index_elements=["boot", "incident_id"], set_=newer, where=is_newer))
    if incident_id is None:
        conn.execute(delete(lease_looks).where(lease_looks.c.incident_id.not_in(select(leases.c.incident_id).where(_watched()))))


def silent(conn: Connection, here: Elapsed, incident_id: str | None = None, *, limit: int = 20) -> list[Lease]:
    """Leases to look after, as far as this machine has seen (`look`). Unlocked: the caller locks one at a time and looks again."""
    mine = (lease_looks.c.incident_id == leases.c.incident_id) & (lease_looks.c.boot == here.boot)
    rows = conn.execute(
        select(leases)
        .join(lease_looks, mine & (lease_looks.c.renewals == leases.c.renewals))
        .where(_watched(incident_id), here.awake_s - lease_looks.c.since_s > leases.c.silent_after_s)
        .order_by(lease_looks.c.since_s)
        .limit(limit)
    )
    return [_lease(row) for row in rows]


def _watched(incident_id: str | None = None) -> ColumnElement[bool]:
    all_watched = leases.c.state.in_(WATCHED) & leases.c.silent_after_s.is_not(None)
    return all_watched if incident_id is None else all_watched & (leases.c.incident_id == incident_id)


def _lease(row: Row[Any]) -> Lease:
    return Lease(row.incident_id, row.generation, row.holder, row.state, row.renewals, row.silent_after_s)


def _set(conn: Connection, incident_id: str, **values: object) -> None:
    _alive(conn, incident_id, true(), **values)


def _alive(conn: Connection, incident_id: str, where: ColumnElement[bool], **values: object) -> bool:
    """Write to the lease where it still is as `where` says; each write is a sign of life."""
    row = update(leases).where(leases.c.incident_id == incident_id, where).values(renewals=leases.c.renewals + 1, **values)
    return bool(conn.execute(row).rowcount)
