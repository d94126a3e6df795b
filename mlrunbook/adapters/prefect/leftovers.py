"""Runs that Prefect holds to be at work and that no process carries any more: their worker died before it could say so.

Each keeps its place in the work pool, so a few of them would keep every other run waiting for ever. Prefect has nothing against it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psutil

from mlrunbook.adapters.prefect.deployments import POOL

log = logging.getLogger(__name__)

LOOK_EVERY_S = 30.0
STARTS_WITHIN = timedelta(seconds=30)  # from a run's state to its process, and from the end of that to the next state
SILENT_AFTER = timedelta(minutes=3)  # a worker's heartbeat comes every 30 s
NOBODYS_AFTER = timedelta(minutes=5)  # claimed, and its worker died before it put its name to it


@dataclass(frozen=True)
class Held:
    """A run that holds a place. `worker`: who started it, None where nobody has put its name to it."""

    id: str
    worker: str | None
    since: datetime


def left_over(run: Held, *, me: str, carried: set[str], heard: Mapping[str, datetime], now: datetime) -> str | None:
    """Why nobody carries the run any more; None where somebody does, or may."""
    if run.worker is None:
        return "the worker that claimed it never started it" if now - run.since > NOBODYS_AFTER else None
    if run.worker == me:
        return "its process is gone" if run.id not in carried and now - run.since > STARTS_WITHIN else None
    last = heard.get(run.worker)
    if last is None or now - last > SILENT_AFTER:
        return f"its worker {run.worker} is gone" if now - run.since > SILENT_AFTER else None
    return None


def carried_here() -> set[str]:
    """The runs that have a process on this machine."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if run_id := process.environ().get("PREFECT__FLOW_RUN_ID"):
                found.add(run_id)
    return found


def sweep(http: httpx.Client, me: str, *, now: datetime, carried: Callable[[], set[str]] = carried_here) -> list[str]:
    """Crash what is left over, and give its place free; their ids."""
    held = _held(http)
    if not held:
        return []
    heard, here, crashed = _heard(http), carried(), []
    for run in held:
        if why := left_over(run, me=me, carried=here, heard=heard, now=now):
            state = {"type": "CRASHED", "message": f"{why[0].upper()}{why[1:]}; its place is free again"}
            http.post(f"/flow_runs/{run.id}/set_state", json={"state": state}).raise_for_status()
            log.warning("run %s is crashed: %s", run.id, why)
            crashed.append(run.id)
    return crashed


def _held(http: httpx.Client) -> list[Held]:
    wanted = {
        "flow_runs": {"state": {"type": {"any_": ["RUNNING", "PENDING"]}}},
        "work_pools": {"name": {"any_": [POOL]}},
        "limit": 200,
    }
    found: list[dict[str, Any]] = http.post("/flow_runs/filter", json=wanted).raise_for_status().json()
    return [
        Held(run["id"], (run.get("labels") or {}).get("prefect.worker.name"), datetime.fromisoformat(run["state"]["timestamp"]))
        for run in found
    ]


def _heard(http: httpx.Client) -> dict[str, datetime]:
    workers = http.post(f"/work_pools/{POOL}/workers/filter", json={}).raise_for_status().json()
    return {one["name"]: datetime.fromisoformat(one["last_heartbeat_time"]) for one in workers if one.get("last_heartbeat_time")}


class Sweeper:
    """Sweeps while the block lasts, in a thread of its own: the worker's event loop waits for nothing here."""

    def __init__(self, http: httpx.Client, me: str) -> None:
        self._http, self._me, self._stop = http, me, threading.Event()
        self._thread = threading.Thread(target=self._run, name="leftovers", daemon=True)

    def __enter__(self) -> Sweeper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=15)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                sweep(self._http, self._me, now=datetime.now(UTC))
            except Exception as error:  # the server is away, or answers what we do not know: the next round may go better
                log.warning("cannot look for runs that nobody carries: %s", error)
            self._stop.wait(LOOK_EVERY_S)
