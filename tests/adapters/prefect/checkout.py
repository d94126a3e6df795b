"""A checkout with flows of its own that a test can hold and let go, on a real Prefect server, and a worker of ours."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from mlrunbook.adapters.prefect.api import PrefectApi
from mlrunbook.adapters.prefect.deployments import POOL, deploy_command, ensure_pool, prefect_client
from mlrunbook.local.addresses import Ports
from mlrunbook.local.stack import Stack
from tests.flows.live import wait_for

FLOWS = """
import asyncio, json, os
from pathlib import Path
from prefect import flow
from prefect.flow_runs import asuspend_flow_run

@flow(flow_run_name="{name}")
async def hold(name: str):
    Path("began", name).touch()
    while not Path("go", name).exists():
        await asyncio.sleep(0.05)

@flow(flow_run_name="{name}")
async def ask(name: str):
    Path("began", name).touch()
    await asuspend_flow_run(key=name)
    Path("began", name + "-again").touch()

@flow(flow_run_name="{name}")
async def environment(name: str):
    Path("began", name).write_text(json.dumps(sorted(os.environ)))
"""
DEPLOYED = """
name: checkout
pull: []
deployments:
"""


class Checkout:
    """`api`: as the gateway. `login`: as whoever has Prefect's login."""

    def __init__(self, home: Path, stack: Stack) -> None:
        self.home = home
        self._started: dict[str, str] = {}
        self.api = PrefectApi(stack.prefect_api_url, stack.prefect_auth)
        self.login = prefect_client(stack.prefect_api_url, stack.prefect_auth)
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_API_URL": stack.prefect_api_url,
            "PREFECT_API_AUTH_STRING": stack.prefect_auth or "",
            "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "MLRUNBOOK_HOME": str(home),
            "DO_NOT_TRACK": "1",
        }
        for folder in ("flows", "began", "go"):
            (home / folder).mkdir(parents=True)
        (home / "flows" / "__init__.py").touch()
        (home / "flows" / "held.py").write_text(FLOWS)
        queues = {"hold": "incidents", "ask": "incidents", "environment": "default"}
        (home / "prefect.yaml").write_text(
            DEPLOYED
            + "".join(
                f"  - {{name: {name}, entrypoint: flows.held.{name}, work_pool: {{name: {POOL}, work_queue_name: {queue}}}}}\n"
                for name, queue in queues.items()
            )
        )
        ensure_pool(self.login, 4)
        self.deploy()

    def deploy(self) -> None:
        subprocess.run(deploy_command(self.home), cwd=self.home, env=self.environment, check=True, capture_output=True)

    @contextlib.contextmanager
    def worker(self, more: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
        argv = [sys.executable, "-m", "mlrunbook.adapters.prefect.worker", "--name", "ours"]
        with open(self.home / "worker.log", "ab") as log:
            process = subprocess.Popen(
                argv, cwd=self.home, env=self.environment | dict(more or {}), stdout=log, stderr=log, preexec_fn=_default_signals
            )
        try:
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(120)
            process.kill()

    def start(self, deployment: str, name: str, *, urgent: bool = False) -> str:
        run_id = self.api.start(deployment, {"name": name}, idempotency_key=name, name=name, urgent=urgent)
        self._started[run_id] = name
        return run_id

    def end_all(self) -> None:
        """Whatever a test has left waiting or at work takes no place from the next one."""
        self.let_go(*self._started.values())
        for run_id in self._started:
            self.api.cancel(run_id, "the test is over")
        self._started.clear()

    def let_go(self, *names: str) -> None:
        for name in names:
            (self.home / "go" / name).touch()

    @property
    def began(self) -> set[str]:
        return {file.name for file in (self.home / "began").iterdir()}

    def at_work(self) -> set[str]:
        """What has begun and was not let go."""
        return self.began - {file.name for file in (self.home / "go").iterdir()}

    def deployment(self, name: str) -> dict[str, Any]:
        return dict(self.login.get(f"/deployments/name/{name}/{name}").raise_for_status().json())

    def run(self, run_id: str) -> dict[str, Any]:
        return dict(self.login.get(f"/flow_runs/{run_id}").raise_for_status().json())

    def wait_until(self, run_id: str, state: str) -> dict[str, Any]:
        wait_for(f"run {run_id} is {state}", lambda: self.run(run_id)["state_type"] == state)
        return self.run(run_id)

    def create(self, deployment_id: str, name: str, **body: Any) -> httpx.Response:
        return self.login.post(f"/deployments/{deployment_id}/create_flow_run", json={"parameters": {"name": name}, "name": name, **body})


def _default_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def stays(condition: Callable[[], bool], for_s: float) -> bool:
    """Looked at again and again: what must not happen has had the time to."""
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline:
        if not condition():
            return False
        time.sleep(0.1)
    return True


@contextlib.contextmanager
def checkout(folder: Path) -> Iterator[Checkout]:
    stack = Stack(folder / "stack", ports=Ports.free(), parts=frozenset({"prefect"}), durable=False, report=lambda _: None)
    with stack:
        yield Checkout(folder / "home", stack)
