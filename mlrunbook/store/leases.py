"""Which run carries an incident. One lease an incident; a run that lost it is fenced off at its next write.

States: free (nobody should run it now), starting (a run is on its way), running, waiting (suspended for a human), done.
A generation is one attempt at the whole runbook: a run that takes over an expired lease starts the next one.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, select, update

from mlrunbook.domain.errors import Fenced, NotFound
from mlrunbook.store import outbox
from mlrunbook.store.tables import incidents, leases

START_GRACE_S = 60.0  # from "Prefect has the run" to its first line: about 3 s when idle, longer on a busy machine


@dataclass(frozen=True)
class Lease:
    incident_id: str
    generation: int
    holder: str | None
    state: str
    expires_at: datetime | None


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
    return Lease(row.incident_id, row.generation, row.holder, row.state, row.expires_at)


def take(conn: Connection, incident_id: str, holder: str, *, now: datetime, lease_s: float) -> Lease | None:
    """Become the run of this incident, or None when a living run has it or there is nothing left to do."""
    lease = get(conn, incident_id, lock=True)
    if lease.state == "done":
        return None
    generation = lease.generation
    if lease.holder not in (None, holder):
        if lease.state == "waiting" or (lease.expires_at is not None and lease.expires_at > now):
            return None
        generation += 1
        conn.execute(update(incidents).where(incidents.c.id == incident_id).values(generation=generation))
    _set(conn, incident_id, generation=generation, holder=holder, state="running", expires_at=now + timedelta(seconds=lease_s), again=False)
    return get(conn, incident_id)


def renew(conn: Connection, lease: Lease, *, now: datetime, lease_s: float) -> bool:
    """Still alive. False when the lease is no longer ours."""
    done = conn.execute(
        update(leases)
        .where(leases.c.incident_id == lease.incident_id, leases.c.holder == lease.holder, leases.c.generation == lease.generation)
        .where(leases.c.state == "running")
        .values(expires_at=now + timedelta(seconds=lease_s))
    )
    return bool(done.rowcount)


def check(conn: Connection, lease: Lease) -> None:
    """Raise Fenced unless `lease` is the current one. Call inside every transaction that a run writes in."""
    now_held = get(conn, lease.incident_id, lock=True)
    if (now_held.holder, now_held.generation) != (lease.holder, lease.generation):
        raise Fenced(f"run {lease.holder} of {lease.incident_id} was replaced by {now_held.holder} (generation {now_held.generation})")


def release(conn: Connection, lease: Lease, state: str, *, now: datetime, look_again_s: float | None = None) -> None:
    """The run stops here: `waiting` keeps it as the one to resume, `free` and `done` let it end.

    A waiting lease gets an expiry too: the reconciler then looks whether the run really is suspended. Where somebody acted while
    the run was at work (`wake`), it is resumed or started again at once.
    """
    check(conn, lease)
    again = conn.execute(select(leases.c.again).where(leases.c.incident_id == lease.incident_id)).scalar_one()
    expires = now + timedelta(seconds=look_again_s) if look_again_s else None
    holder = lease.holder if state == "waiting" else None
    _set(conn, lease.incident_id, generation=lease.generation, holder=holder, state=state, expires_at=expires, again=False)
    if again and state != "done":
        key = f"again-{lease.generation}-{now.isoformat()}"
        wake(conn, lease.incident_id, why="somebody acted while the run was at work", key=key, now=now)


def expect(conn: Connection, incident_id: str, *, now: datetime) -> None:
    """The caller is the run and takes the lease next; if it dies before that, the reconciler starts another."""
    _set(conn, incident_id, state="starting", expires_at=now + timedelta(seconds=START_GRACE_S))


def request_start(conn: Connection, incident_id: str, *, why: str, now: datetime, at: datetime | None = None) -> int:
    """Ask the dispatcher for a run of the next generation (the first start keeps generation 1). Fences off a run that is still there."""
    generation = get(conn, incident_id, lock=True).generation
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
    conn.execute(update(incidents).where(incidents.c.id == incident_id).values(generation=generation))
    # No expiry until Prefect has accepted the run: while Prefect is down the outbox row is what waits.
    _set(conn, incident_id, generation=generation, holder=None, state="starting", expires_at=None)
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
        outbox.reschedule(conn, start_key(incident_id, lease.generation), now)
        if outbox.is_delivered(conn, start_key(incident_id, lease.generation)):
            outbox.put(conn, "resume_run", f"resume:{incident_id}:{key}", {"why": why}, now=now, incident_id=incident_id)
    elif lease.state == "running":
        _set(conn, incident_id, again=True)


def preempt(conn: Connection, incident_id: str, *, why: str, now: datetime) -> None:
    """Go on from the top, now: also in the place of a run that is in the middle of something long. The journal makes it safe: nothing is
    applied twice."""
    if get(conn, incident_id, lock=True).state == "running":
        request_start(conn, incident_id, why=why, now=now)
    else:
        wake(conn, incident_id, why=why, key=f"again-{now.isoformat()}", now=now)


def started(conn: Connection, incident_id: str, generation: int, *, now: datetime) -> None:
    """Prefect has the run: from here the reconciler counts."""
    get(conn, incident_id, lock=True)
    conn.execute(
        update(leases)
        .where(
            leases.c.incident_id == incident_id, leases.c.generation == generation, leases.c.state == "starting", leases.c.holder.is_(None)
        )
        .values(expires_at=now + timedelta(seconds=START_GRACE_S))
    )


def resumed(conn: Connection, lease: Lease, *, now: datetime) -> None:
    """A suspended run is on its way back."""
    get(conn, lease.incident_id, lock=True)
    conn.execute(
        update(leases)
        .where(leases.c.incident_id == lease.incident_id, leases.c.holder == lease.holder, leases.c.state == "waiting")
        .values(state="running", expires_at=now + timedelta(seconds=START_GRACE_S))
    )


def look_later(conn: Connection, lease: Lease, *, now: datetime, after_s: float) -> None:
    get(conn, lease.incident_id, lock=True)
    conn.execute(
        update(leases)
        .where(leases.c.incident_id == lease.incident_id, leases.c.generation == lease.generation, leases.c.state == lease.state)
        .values(expires_at=now + timedelta(seconds=after_s))
    )


def expired(conn: Connection, *, now: datetime, limit: int = 20) -> list[Lease]:
    """Leases to look at. Unlocked: the caller locks one at a time and looks again."""
    rows = conn.execute(
        select(leases)
        .where(leases.c.state.in_(["starting", "running", "waiting"]), leases.c.expires_at < now)
        .order_by(leases.c.expires_at)
        .limit(limit)
    )
    return [Lease(r.incident_id, r.generation, r.holder, r.state, r.expires_at) for r in rows]


def _set(conn: Connection, incident_id: str, **values: object) -> None:
    conn.execute(update(leases).where(leases.c.incident_id == incident_id).values(**values))
