"""One version scores rows in a process of its own. What comes back is a file of JSON that is read as hostile."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlrunbook.adapters.fields import WRONG_SHAPE, parsed
from mlrunbook.adapters.mlflow.replay import confine
from mlrunbook.base.processes import last_lines, spawn
from mlrunbook.domain.communication.messages import line
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.observed import probability

SCORER = Path(__file__).with_name("scorer.py")
MOST_OUT_BYTES, MOST_FILE_BYTES = 512_000_000, 64_000_000
LOOK_EVERY_S = 0.1
SAID = 300  # characters of what a model says about itself


@dataclass(frozen=True)
class Limits:
    timeout_s: float
    memory_mb: int
    python: str | None = None


@dataclass(frozen=True)
class Scored:
    """`problem`: why there are no scores."""

    scores: tuple[float, ...] = ()
    labels_only: bool = False
    latency_ms: float | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Rows:
    """What is asked, and which words of a model mean yes and no. No outcome is among it."""

    rows: Sequence[Mapping[str, Any]]
    yes: Sequence[str]
    no: Sequence[str]


def demand_confinement() -> None:
    """Refused where this machine cannot confine a process."""
    if (why := confine.why_not()) is not None:
        raise Refused(f"replay by MLflow is not done here: {why}. Without it a model's own code could reach what the runbook can")


def score(folder: Path, rows: Rows, limits: Limits) -> Scored:
    """`folder` holds the artefact. Refused where no interpreter can be confined; everything else is the version's own problem."""
    python = limits.python or sys.executable
    if not os.access(python, os.X_OK):
        raise Refused(f"replay.python: {python} is no program that can be run here")
    with _place() as place:
        shutil.copyfile(SCORER, place / "in" / "scorer.py")
        (place / "in" / "rows.json").write_text(json.dumps({"rows": list(rows.rows), "yes": list(rows.yes), "no": list(rows.no)}))
        wanted = {
            "argv": [python, "-I", "-B", *map(str, (place / "in" / "scorer.py", folder, place / "in" / "rows.json", place / "out" / "r"))],
            "read": [*confine.read_by(python), str(place / "in"), str(folder)],
            "write": [str(place / "out")],
            "memory_bytes": limits.memory_mb * 1_000_000,
            "file_bytes": MOST_FILE_BYTES,
            "cpu_s": int(limits.timeout_s * 2) + 1,
        }
        argv = [sys.executable, "-I", "-B", confine.__file__, json.dumps(wanted)]
        log = place / "log"
        process = spawn(argv, env=_environment(place / "out"), log=log, cwd=place / "out", when_orphaned=signal.SIGKILL)
        try:
            why = _watch(process, place / "out", limits)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if why:
            return Scored(problem=why)
        return _ended(process.returncode, place, len(rows.rows))


def _environment(home: Path) -> dict[str, str]:
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_TRACKING_URI": "file:///nowhere"}
    few = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT", "MALLOC_ARENA_MAX")}
    return {"HOME": str(home), "TMPDIR": str(home), "LANG": "C.UTF-8", "USER": "nobody", "LOGNAME": "nobody", **quiet, **few}


@contextmanager
def _place() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="mlrunbook-replay-"))
    try:
        for name in ("in", "out"):
            (place / name).mkdir(mode=0o700)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _watch(process: subprocess.Popen[bytes], out: Path, limits: Limits) -> str | None:
    """Until it ends by itself: None. Else why it must end."""
    deadline = time.monotonic() + limits.timeout_s
    while True:
        try:
            process.wait(LOOK_EVERY_S)
            return None
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                return f"it took longer than {limits.timeout_s:.0f} s (replay.timeout_s)"
            if _size(out) > MOST_OUT_BYTES:
                return f"it wrote more than {MOST_OUT_BYTES / 1e6:.0f} MB"


def _size(folder: Path) -> int:
    total = 0
    for at, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(at, name)).st_size
    return total


def _ended(code: int, place: Path, rows: int) -> Scored:
    if code == confine.NOT_CONFINED:
        raise Refused(f"replay by MLflow is not done here: {line(last_lines(place / 'log', 1), SAID)}")
    if code == confine.NO_INTERPRETER:
        raise Refused(f"replay.python: {line(last_lines(place / 'log', 1), SAID)}")
    if code != 0:
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return Scored(problem=f"its process {how}; the last it printed: {line(last_lines(place / 'log', 1), SAID)}")
    try:
        return _read(parsed(_result(place / "out" / "r")), rows)
    except (OSError, *WRONG_SHAPE) as error:
        return Scored(problem=f"its process left no answer that can be read ({line(str(error), SAID)})")


def _result(path: Path) -> bytes:
    """A plain file of bounded length: no link, no pipe."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            raise ValueError("it is no plain file")
        content = file.read(MOST_FILE_BYTES + 1)
    if len(content) > MOST_FILE_BYTES:
        raise ValueError("it is too long")
    return content


def _read(answer: Any, rows: int) -> Scored:
    if isinstance(problem := answer.get("problem"), str):
        return Scored(problem=line(problem, SAID))
    given = answer["scores"]
    if not isinstance(given, list) or len(given) != rows:
        raise ValueError(f"{rows} scores were asked for")
    latency_ms = answer.get("latency_ms")
    known = isinstance(latency_ms, int | float) and not isinstance(latency_ms, bool) and 0 <= latency_ms < 1e9
    return Scored(
        tuple(probability(one, "a score") for one in given), answer.get("labels_only") is True, float(latency_ms) if known else None
    )
