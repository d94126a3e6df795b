"""A real `mlflow server` on a free port, with its registry in SQLite: one a module, for it takes a while to start."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.served import answers
from tests.waiting import until

START_LIMIT_S = 400.0  # 4 s of CPU time on a quiet machine; minutes were seen on a busy one


@contextmanager
def mlflow_server(folder: Path, **env: str) -> Iterator[str]:
    """Its URL. One worker and no job runner: more workers are killed while they still import, where the machine is busy."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "artifacts")]
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    hooks = {"MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true", "MLFLOW_WEBHOOK_CACHE_TTL": "1"}
    own = {key: value for key, value in os.environ.items() if not key.startswith(("MLRUNBOOK_", "MLFLOW_"))}
    with (folder / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(command, env=own | quiet | hooks | env, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: process.poll() is not None or answers(f"{url}/health"), START_LIMIT_S)
        assert process.poll() is None, (folder / "mlflow.log").read_text()[-2000:]
        yield url
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
