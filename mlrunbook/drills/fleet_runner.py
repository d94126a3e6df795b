"""The simulated fleet beside a running stack: for the demo, and for `mlrunbook up --with-fleet`."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from mlrunbook.domain.errors import Transient
from mlrunbook.drills.simulator.fleet import Fleet, Source
from mlrunbook.drills.simulator.simulator import FleetSimulator
from mlrunbook.drills.simulator.traffic import MODEL, Access
from mlrunbook.drills.simulator.uci import UciTable
from mlrunbook.local.stack import MODEL_SERVER, Stack

BATCH, INTERVAL_S = 1000, 1.25  # the demo's pace: enough failures for an interval within seconds


def source_of(data: Path | None, seed: int) -> Source:
    """The simulated fleet, or the table at `data`."""
    return UciTable(data, seed) if data else Fleet(seed)


def simulator_for(stack: Stack, source: Source, *, seed: int, kind: Callable[..., FleetSimulator] = FleetSimulator) -> FleetSimulator:
    env = stack.env()
    return kind(
        source,
        access=Access(env["MLRUNBOOK_MODEL_SERVER_URL"], env["MLRUNBOOK_PLATFORM_URL"], stack.token("simulator")),
        models_dir=stack.data / "models",
        lake=stack.lake,
        seed=seed,
        server_pid=lambda: stack.supervisor.pid(MODEL_SERVER),
    )


def wait_until_served(stack: Stack, model: str = MODEL, *, patience_s: float = 60.0) -> None:
    """Until the model server has loaded the serving version and, with the feature store in the box, reads features that are up to date."""
    deadline = time.monotonic() + patience_s
    env = stack.env()
    headers = {"Authorization": f"Bearer {stack.token('simulator')}"}
    with httpx.Client(headers=headers, timeout=10.0, trust_env=False) as http:
        while time.monotonic() < deadline:
            status = http.get(f"{env['MLRUNBOOK_PLATFORM_URL']}/api/v1/ml/models/{model}/status")
            if status.is_success and status.json()["serverHealthy"] and (stack.lake is None or _features_flow(http, env)):
                return
            time.sleep(0.1)
    raise Transient(f"the model server does not serve {model}; look at {stack.data / 'logs'}")


def _features_flow(http: httpx.Client, env: dict[str, str]) -> bool:
    """Whether the seeded readings are in the online store, and the model server reads them."""
    schedules = http.get(f"{env['MLRUNBOOK_PLATFORM_URL']}/api/v1/ml/features/schedules")
    health = http.get(f"{env['MLRUNBOOK_MODEL_SERVER_URL']}/health")
    return (
        schedules.is_success
        and all(one["materializedUntil"] for one in schedules.json()["schedules"])
        and health.json()["features"]["state"] == "ok"
    )


@contextlib.contextmanager
def flowing(simulator: FleetSimulator, *, interval_s: float = INTERVAL_S, batch: int = BATCH) -> Iterator[None]:
    """Traffic in a thread for the length of the block."""
    stop = threading.Event()
    thread = threading.Thread(target=simulator.run, args=(stop,), kwargs={"interval_s": interval_s, "batch": batch}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=15)
