"""A real `mlflow server` on a free port, with its registry in SQLite: one a module, for it takes a while to start."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from mlrunbook.drills.mlflow_team.server import MlflowServer
from tests.served import answers
from tests.waiting import until

START_LIMIT_S = 400.0  # 4 s of CPU time on a quiet machine; minutes were seen on a busy one


@contextmanager
def mlflow_server(folder: Path, **env: str) -> Iterator[str]:
    """Its URL; the server of the demo, ended with all that it starts."""
    server = MlflowServer(folder)
    service = server.service
    with (folder / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(service.argv, env={**service.env, **env}, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    try:
        until(lambda: process.poll() is not None or answers(f"{server.url}/health"), START_LIMIT_S)
        assert process.poll() is None, (folder / "mlflow.log").read_text()[-2000:]
        yield server.url
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """It and all it started: a helper that outlives its server would slow every test after it."""
    children = []
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait(60)
