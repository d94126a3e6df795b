"""The lease of the incident that this flow run carries, kept alive while the run lives."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from prefect.runtime import flow_run

from mlrunbook.domain.errors import Fenced, Refused
from mlrunbook.steps import lifecycle
from mlrunbook.steps.run import Run
from mlrunbook.store import leases
from mlrunbook.wiring import world
from tasks._policy import off_loop

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
    run = await off_loop(lifecycle.take, world(), incident_id, str(flow_run.id))
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
        await off_loop(lifecycle.failed, run, error)
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
