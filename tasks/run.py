"""The run that holds an incident's lease: kept alive while it lives; its errors are recorded before it ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

from prefect.runtime import flow_run

from mlrunbook.bootstrap import world
from mlrunbook.domain.errors import Fenced, Refused
from mlrunbook.response.lifecycle import runs
from mlrunbook.response.run import Run
from mlrunbook.store import leases

P = ParamSpec("P")
R = TypeVar("R")

_current: ContextVar[Run] = ContextVar("mlrunbook_run")


async def off_loop(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a sync step in a thread: a blocked event loop is a flow without heartbeat."""
    return await asyncio.to_thread(function, *args, **kwargs)


def current_run(incident_id: str) -> Run:
    """The run that carries the incident. Set by `carrying`, which every top-level flow enters."""
    run = _current.get(None)
    if run is None:
        raise Refused("this step runs inside `respond` or a path's deployment, which hold the incident's lease")
    if run.incident_id != incident_id:
        raise Refused(f"this run carries {run.incident_id}: start `respond` for {incident_id}")
    return run


@contextmanager
def on_behalf_of(run: Run) -> Iterator[None]:
    """The tasks of the body write for this run."""
    token = _current.set(run)
    try:
        yield
    finally:
        _current.reset(token)


@asynccontextmanager
async def carrying(incident_id: str) -> AsyncIterator[bool]:
    """Hold the incident's lease for the body; False when another run carries it.

    An error ends this run and is recorded on the timeline: a `Refused` or `Unknown` pages a human, anything else is retried by a
    later run. A run that was fenced off ends quietly.
    """
    run = await off_loop(runs.take, world(), incident_id, str(flow_run.id))
    if run is None:
        yield False
        return
    stop = threading.Event()
    threading.Thread(target=_keep_alive, args=(run, stop), name="lease", daemon=True).start()
    try:
        with on_behalf_of(run):
            yield True
    except Fenced:
        raise
    except Exception as error:
        stop.set()
        await off_loop(runs.failed, run, error)
        raise
    finally:
        stop.set()


def _keep_alive(run: Run, stop: threading.Event) -> None:
    """Renew from a thread of its own: a long task must not look like a dead run."""
    lease_s = run.world.lease_s
    while not stop.wait(lease_s / 3):
        try:
            with run.world.transaction() as conn:
                leases.renew(conn, run.lease, here=run.world.elapsed(), lease_s=lease_s)
        except Exception:  # noqa: S112 - the store is down for a moment: the next beat tries again
            continue
