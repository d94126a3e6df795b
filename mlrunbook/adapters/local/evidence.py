"""What of the local runtime is evidence: the model server's logs, what it shall be, what it says it is, and its process."""

from __future__ import annotations

import json
import os
import re
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil

from mlrunbook.base.settings import Settings
from mlrunbook.domain.errors import NotFound
from mlrunbook.domain.observed import Resources
from mlrunbook.ports import MISSING

MODULE = "mlrunbook.local.serving.model_server"
MEASURED_FOR_S = 0.2
MAX_LOG_BYTES = 5_000_000  # the newest of each log
_STAMP = "%Y-%m-%d %H:%M:%S"  # as the model server's log has it, in UTC
_STAMPED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d")


def collect(config: Settings, http: httpx.Client) -> dict[str, bytes]:
    """Name -> content; `http` asks the model server. What cannot be read is named `<name>.missing` and holds the reason."""
    log = config.serving_log_file
    sources: dict[str, Callable[[], bytes]] = {
        "logs/model-server.log": lambda: _end_of(log),
        "serving/desired.json": lambda: _asked_for(config.serving_state_file),
        "serving/model-config.json": config.serving_config_file.read_bytes,
        "serving/health.json": lambda: http.get("/health").content,
        "serving/metrics.txt": lambda: http.get("/metrics").raise_for_status().content,
        "serving/processes.json": lambda: json.dumps(_processes(http.base_url.port), default=str, indent=1).encode(),
    }
    rotated = log.with_suffix(".log.1")
    if rotated.exists():
        sources["logs/model-server.log.1"] = lambda: _end_of(rotated)
    found: dict[str, bytes] = {}
    for name, read in sources.items():
        try:
            found[name] = read()
        except (OSError, httpx.HTTPError, psutil.Error, LookupError) as error:
            found[name + MISSING] = f"not readable: {error}".encode()
    return found


def resources(http: httpx.Client) -> Resources:
    """CPU over a fifth of a second and memory, as shares of this machine's. NotFound when no model server runs."""
    try:
        running = [psutil.Process(found["pid"]) for found in _processes(http.base_url.port)]
        for process in running:
            process.cpu_percent()
        time.sleep(MEASURED_FOR_S)
        cpu = sum(process.cpu_percent() for process in running) / 100 / (psutil.cpu_count() or 1)
        memory = sum(process.memory_info().rss for process in running) / psutil.virtual_memory().total
    except (LookupError, psutil.Error) as error:
        raise NotFound(f"CPU and memory use cannot be measured: {error}") from error
    return Resources(cpu=round(min(cpu, 1.0), 3), memory=round(memory, 3))


def tail_of(log: Path, lines: int, since: datetime | None) -> str:
    """The newest lines, none of a record made before `since`. FileNotFoundError without a log.

    The time stands on the first line of a record; the lines after it (a traceback) are of that record. Words without a time of their
    own, such as a crash's, count as written when the file last was.
    """
    with open(log, errors="replace") as content:
        kept = list(deque(content, maxlen=lines))
        written = datetime.fromtimestamp(os.fstat(content.fileno()).st_mtime, UTC)
    if since is None:
        return "".join(kept)
    if written < since:
        return ""
    made = [(i, datetime.strptime(at[0], _STAMP).replace(tzinfo=UTC)) for i, line in enumerate(kept) if (at := _STAMPED.match(line))]
    fresh = next((i for i, at in made if at >= since.replace(microsecond=0)), None)
    old = max((i for i, at in made), default=-1)
    return "".join(kept[old + 1 if fresh is None else fresh :])


def _asked_for(state_file: Path) -> bytes:
    """Without the file, nobody has asked for anything: that is an answer too."""
    try:
        return state_file.read_bytes()
    except FileNotFoundError:
        return b"{}"


def _end_of(log: Path) -> bytes:
    with open(log, "rb") as content:
        content.seek(max(0, log.stat().st_size - MAX_LOG_BYTES))
        return content.read()


def _processes(port: int | None) -> list[dict[str, Any]]:
    """The model server's processes as the system sees them: who is connected, what is open. The environment by name alone, its values
    are secrets. LookupError when none runs."""
    found = []
    for process in psutil.process_iter():
        try:
            argv = process.cmdline()
            if MODULE not in argv or str(port) not in argv:
                continue
            with process.oneshot():
                found.append(
                    {
                        "pid": process.pid,
                        "argv": argv,
                        "user": process.username(),
                        "started_at": datetime.fromtimestamp(process.create_time(), UTC),
                        "memory_bytes": process.memory_info().rss,
                        "threads": process.num_threads(),
                        "open_files": [f.path for f in process.open_files()],
                        "connections": [
                            {"local": _address(c.laddr), "remote": _address(c.raddr), "status": c.status}
                            for c in process.net_connections(kind="inet")
                        ],
                        "environment_names": sorted(process.environ()),
                    }
                )
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    if not found:
        raise LookupError("no model server process runs")
    return found


def _address(at: Any) -> str | None:
    return f"{at.ip}:{at.port}" if at else None
