"""The training command of the policy, run in a process of its own: lines streamed, time and memory limited, ended with all it started."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil

from mlrunbook.base import json_file
from mlrunbook.base.processes import MARK, end_marked, last_lines, spawn
from mlrunbook.domain.errors import Fenced, Invalid, NotFound, Refused
from mlrunbook.domain.policy.policy import Training
from mlrunbook.domain.resolution.retraining import check_name

LOOK_EVERY_S = 0.1
MEASURE_EVERY_S = 0.5
ASK_ALIVE_EVERY_S = 2.0
PLACEHOLDER = re.compile(r"\{[a-z_]+\}")


class TrainingByModel:
    """ports.Trainer: each model by the command and the limits that policy gives it."""

    def __init__(self, rules: Callable[[str], Training], folder: Path, *, home: Path) -> None:
        self._rules, self._folder, self._home = rules, folder, home

    def train(
        self, model: str, *, version: str, start: datetime, end: datetime, log: Callable[[str], None], alive: Callable[[], bool]
    ) -> None:
        process = TrainingProcess(self._rules(model), self._folder, home=self._home)
        process.train(model, version=version, start=start, end=end, log=log, alive=alive)


class TrainingProcess:
    """ports.Trainer. Keeps `<folder>/<model>/<version>.turn` (a lock), `.log` and, once it has succeeded, `.json` with the window.

    `home` is where the command runs.
    """

    def __init__(self, policy: Training, folder: Path, *, home: Path, env: Mapping[str, str] | None = None) -> None:
        self._command = policy.command
        self._timeout_s = policy.timeout_min * 60.0
        self._memory_limit_mb = policy.memory_limit_mb
        self._folder, self._home = folder, home
        self._env = dict(os.environ if env is None else env)

    def train(
        self, model: str, *, version: str, start: datetime, end: datetime, log: Callable[[str], None], alive: Callable[[], bool]
    ) -> None:
        check_name(model, "model")
        check_name(version, "version")
        window = {"start": start.astimezone(UTC).isoformat(), "end": end.astimezone(UTC).isoformat()}
        argv = self._argv(model, version, window)
        base = self._folder / model / version
        base.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + self._timeout_s
        with self._alone(base.with_name(f"{version}.turn"), version, deadline, log, alive):
            done = base.with_name(f"{version}.json")
            if done.exists():
                stood = json_file.read(done)
                if {key: stood.get(key) for key in window} != window:
                    raise Refused(f"{version} was trained on {stood.get('start')} to {stood.get('end')}; choose another version")
                log(f"{version} is trained already")
                return
            self._run(argv, base.with_name(f"{version}.log"), model, version, deadline, log, alive)
            json_file.patch(done, window | {"command": argv, "finished_at": datetime.now(UTC).isoformat()})

    def _argv(self, model: str, version: str, window: Mapping[str, str]) -> list[str]:
        filled = {"{start_date}": window["start"], "{end_date}": window["end"], "{model_name}": model, "{version}": version}
        argv = []
        for argument in self._command:
            for unknown in set(PLACEHOLDER.findall(argument)) - filled.keys():
                raise Invalid(f"training.command: there is no placeholder {unknown}; use {', '.join(filled)}", field="training.command")
            argv.append(PLACEHOLDER.sub(lambda found: filled[found.group()], argument))
        if argv[0] == "mlrunbook":  # ours, by this very interpreter: another one may be first on the PATH
            return [sys.executable, "-m", "mlrunbook.cli", *argv[1:]]
        beside = f"{Path(sys.executable).parent}{os.pathsep}{self._env.get('PATH', os.defpath)}"
        program = shutil.which(argv[0], path=beside) if os.sep not in argv[0] else shutil.which(str(self._home / argv[0]))
        if program is None:
            raise NotFound(f"training.command: there is no program {argv[0]!r} in {self._home}, beside Python or on the PATH; install it")
        return [program, *argv[1:]]

    @contextlib.contextmanager
    def _alone(
        self, lock: Path, version: str, deadline: float, log: Callable[[str], None], alive: Callable[[], bool]
    ) -> Iterator[None]:  # fmt: skip
        """Wait until nobody else trains this version: a run that was replaced may still be ending its command."""
        with open(lock, "a") as held:  # the kernel lets it go with us, however we end; the command does not inherit it
            told = False
            while True:
                try:
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not told:
                        log(f"another run is training {version}: waiting for it")
                        told = True
                    if not alive():
                        raise Fenced(f"another run has taken over: {version} is not trained here") from None
                    if time.monotonic() > deadline:
                        raise Refused(f"another run has been training {version} for too long; see {lock.with_suffix('.log')}") from None
                    time.sleep(MEASURE_EVERY_S)
            yield

    def _run(
        self,
        argv: Sequence[str],
        log_file: Path,
        model: str,
        version: str,
        deadline: float,
        log: Callable[[str], None],
        alive: Callable[[], bool],
    ) -> None:
        # Below the stack's own mark, so that whatever ends the stack ends this too.
        mark = f"{self._env.get(MARK, 'training/')}{model}/{version}/"
        end_marked(mark, grace_s=1.0)  # of a run that was killed: its command's own children may have outlived it
        log_file.unlink(missing_ok=True)
        env = self._env | {MARK: mark, "PYTHONUNBUFFERED": "1"}
        try:
            process = spawn(argv, env=env, log=log_file, cwd=self._home)
        except OSError as error:
            raise Refused(f"training.command: {argv[0]} cannot be run: {error.strerror or error}") from error
        try:
            why = self._watch(process, log_file, deadline, log, alive)
        finally:
            _end(process, mark)
        if why is None and process.returncode:
            why = f"failed with exit code {process.returncode}" if process.returncode > 0 else f"was ended by signal {-process.returncode}"
        if why:
            raise Refused(f"training of {version} {why}; the end of {log_file}:\n{last_lines(log_file)}")

    def _watch(
        self, process: subprocess.Popen[bytes], log_file: Path, deadline: float, log: Callable[[str], None], alive: Callable[[], bool]
    ) -> str | None:
        """Until it ends by itself: None. Else why it must end. Fenced when another run has taken over."""
        measure_at = ask_at = 0.0
        with open(log_file, errors="replace") as lines:
            partial = ""
            while True:
                over = process.poll() is not None  # before reading: what it printed last is read then
                partial = _stream(lines.read(), partial, log, over)
                if over:
                    return None
                now = time.monotonic()
                if now > deadline:
                    return f"took over {self._timeout_s / 60:g} min (training.timeout_min)"
                if now >= measure_at:
                    measure_at = now + MEASURE_EVERY_S
                    if (used_mb := _memory_mb(process.pid)) > self._memory_limit_mb:
                        return f"used {used_mb:.0f} MB of memory, over {self._memory_limit_mb} (training.memory_limit_mb)"
                if now >= ask_at:
                    ask_at = now + ASK_ALIVE_EVERY_S
                    if not alive():
                        raise Fenced("another run has taken over: the training was stopped")
                time.sleep(LOOK_EVERY_S)


def _stream(text: str, partial: str, log: Callable[[str], None], over: bool) -> str:
    """Hand on the whole lines; return what has no end yet."""
    *whole, rest = (partial + text).split("\n")
    for line in [*whole, *([rest] if over else [])]:
        if line.strip():
            log(line.rstrip())
    return "" if over else rest


def _memory_mb(pid: int) -> float:
    """Resident memory of a process and all below it."""
    total = 0
    with contextlib.suppress(psutil.Error):
        top = psutil.Process(pid)
        for one in (top, *top.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += one.memory_info().rss
    return total / 1e6


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    """The command and everything it has started, wherever it has moved."""
    end_marked(mark, grace_s=2.0)
    if process.poll() is None:
        process.kill()
    process.wait()
