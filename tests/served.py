"""Services on a free port: an ASGI application in a thread of this process, and the gateway as a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from tests.waiting import until


@contextmanager
def served(app: FastAPI, **how: Any) -> Iterator[str]:
    """The application's URL."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1, **how))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until(lambda: server.started)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=120)


@contextmanager
def gateway_process(database_url: str, data: Path, *, options: Sequence[str] = (), **env: str) -> Iterator[tuple[int, str]]:
    """`python -m mlrunbook.gateway` with its dispatcher: its process id and URL on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = {key: value for key, value in os.environ.items() if not key.startswith(("MLRUNBOOK_", "PREFECT_"))}
    given = {"MLRUNBOOK_DATABASE_URL": database_url, "MLRUNBOOK_DATA_DIR": str(data), "MLRUNBOOK_HOME": str(data)} | env
    data.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "mlrunbook.gateway", "--port", str(port), *options]
    with open(data / "gateway.log", "wb") as log:
        process = subprocess.Popen(argv, env=own | given, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: answers(f"{url}/health"))
        yield process.pid, url
    finally:
        process.terminate()
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False
