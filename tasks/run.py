"""The run that holds an incident's lease: kept alive while it lives, handed to a human, started again later, ended."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from prefect import task
from prefect.runtime import flow_run

from mlrunbook.bootstrap import world
from mlrunbook.domain.errors import Fenced, Refused
from mlrunbook.response.lifecycle import runs
from mlrunbook.response.run import Run
from mlrunbook.store import leases
from tasks._retry import RETRY_TRANSIENT, off_loop

_current: ContextVar[Run] = ContextVar("mlrunbook_run")


def current_run() -> Run:
    """The run that tasks write for. Set by `carrying`, which every top-level flow enters."""
    try:
        return _current.get()
    except LookupError:
        raise Refused("this step runs inside `respond` or a path's deployment, which hold the incident's lease") from None


@asynccontextmanager
async def carrying(incident_id: str) -> AsyncIterator[bool]:
    """Hold the incident's lease for the body; False when another run carries it.

    An error ends this run and is said on the timeline: a `Refused` or `Unknown` pages a human, anything else is tried again by a
    later run. A run that was fenced off ends quietly.
    """
    run = await off_loop(runs.take, world(), incident_id, str(flow_run.id))
    if run is None:
        yield False
        return
    token, stop = _current.set(run), threading.Event()
    threading.Thread(target=_keep_alive, args=(run, stop), name="lease", daemon=True).start()
    try:
        yield True
    except Fenced:
        raise
    except Exception as error:
        stop.set()
        await off_loop(runs.failed, run, error)
        raise
    finally:
        stop.set()
        _current.reset(token)


def _keep_alive(run: Run, stop: threading.Event) -> None:
    """Renew from a thread of its own: a long task must not look like a dead run."""
    lease_s = run.world.lease_s
    while not stop.wait(lease_s / 3):
        try:
            with run.world.transaction() as conn:
                leases.renew(conn, run.lease, now=run.world.now(), lease_s=lease_s)
        except Exception:  # noqa: S112 - the store is away for a moment: the next beat tries again
            continue


@task(task_run_name="is-the-{record}-recorded", **RETRY_TRANSIENT)
async def is_recorded(incident_id: str, record: str) -> bool:
    """Whether an earlier run came this far: a run that comes back need not ask for every step."""
    return await off_loop(current_run().recorded, record) is not None


@task(task_run_name="may-{incident_id}-go-on-by-itself", **RETRY_TRANSIENT)
async def automation_held(incident_id: str) -> str | None:
    """Why nothing more happens by itself; None where it does."""
    return await off_loop(runs.held, current_run())


@task(task_run_name="hand-{incident_id}-to-a-human", **RETRY_TRANSIENT)
async def hand_to_human(incident_id: str, reason: str) -> None:
    """Page, and stop until a human acts."""
    await off_loop(runs.stop_for_human, current_run(), reason=reason)


@task(task_run_name="look-again-at-{incident_id}", **RETRY_TRANSIENT)
async def look_again_later(incident_id: str, reason: str, after_s: float) -> str:
    """Have the dispatcher start the next run then; returns the time."""
    return str(await off_loop(runs.look_again_later, current_run(), reason=reason, after_s=after_s))


@task(task_run_name="end-{incident_id}", **RETRY_TRANSIENT)
async def end(incident_id: str) -> None:
    """Nothing is left to do: the lease ends."""
    await off_loop(runs.done, current_run())
