"""Whether somebody has set the clock, and what follows for the times that were read from it.

What a machine's clock shows, less the seconds since its boot, is constant until the clock is set. It is kept once a boot, so that a process
that starts later, or was stopped meanwhile, finds the jump too. Times move in the safe direction alone, because what other machines
have written was not read from the clock that jumped: due times and the end of an approval only to earlier, what a limit counts only to
later.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert

from mlrunbook.domain.elapsed import Elapsed
from mlrunbook.store import incidents, journal, outbox, plans
from mlrunbook.store.tables import clocks

FORGOTTEN = timedelta(days=30)  # a boot that long ago is over
JUMP_S = 5.0  # less is what keeping a clock right takes


def settle(conn: Connection, now: Callable[[], datetime], elapsed: Callable[[], Elapsed]) -> tuple[float, float]:
    """Move what must move since this machine's clock was read last; its offset now, and by how much it jumped."""
    conn.execute(text("SET LOCAL lock_timeout = '10s'"))  # who holds an incident for longer keeps everybody waiting, not for ever
    conn.execute(select(func.pg_advisory_xact_lock(func.hashtext("mlrunbook clocks"))))  # one at a time: a jump counts once
    at, here = now(), elapsed()
    offset_s = at.timestamp() - here.total_s
    known = conn.execute(select(clocks.c.offset_s).where(clocks.c.boot == here.boot)).scalar_one_or_none()
    jump_s = _behind_the_others(conn, at) if known is None else offset_s - known
    if abs(jump_s) < JUMP_S:
        jump_s, offset_s = 0.0, offset_s if known is None else known
    if jump_s < 0:
        incidents.clock_set_back(conn, -jump_s)
        plans.clock_set_back(conn, -jump_s, is_known=known is not None)
        outbox.clock_set_back(conn, -jump_s)
    elif jump_s > 0:
        journal.clock_set_forward(conn, jump_s, now=at)
    if known is None:
        conn.execute(delete(clocks).where(clocks.c.seen_at < at - FORGOTTEN))
    row = insert(clocks).values(boot=here.boot, offset_s=offset_s, seen_at=at)
    conn.execute(row.on_conflict_do_update(index_elements=["boot"], set_={"offset_s": offset_s, "seen_at": at}))
    return offset_s, jump_s


def _behind_the_others(conn: Connection, at: datetime) -> float:
    """A boot that nobody knows: since the last one the clock may have been set back, by no less than what it lacks. Negative, or 0."""
    latest = conn.execute(select(func.max(clocks.c.seen_at))).scalar_one()
    return min(0.0, (at - latest.astimezone(UTC)).total_seconds()) if latest else 0.0
