"""Child processes that never outlive us: start, health, restart, stop, and finding what a killed supervisor left.

Every child carries MLRUNBOOK_PROCESS=<stack id>/<service>/ in its environment and so do its own children, whatever
session or parent they move to (Prefect starts each flow run in a session of its own). The mark, not a process
number, decides what is ours: a number may have passed to a stranger meanwhile.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from mlrunbook.domain.errors import Refused

MARK = "MLRUNBOOK_PROCESS"
TERM_GRACE_S = 8.0
POLL_S = 0.05
CRASH_LOOP = 5  # deaths within CRASH_WINDOW_S that are reported as a crash loop
CRASH_WINDOW_S = 60.0
MAX_BACKOFF_S = 15.0
MAX_LOG_BYTES = 20_000_000
_PR_SET_PDEATHSIG = 1

# The kernel sends the parent-death signal when the *thread* that forked ends, so one thread that lives as long as we do forks them all.
_spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawn")
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    cwd: Path | None = None,
    user: int | None = None,
    group: int | None = None,
    when_orphaned: signal.Signals = signal.SIGTERM,
) -> subprocess.Popen[bytes]:
    """Start `argv` in a session of its own, output appended to `log`; the kernel sends it `when_orphaned` when we die."""
    parent = os.getpid()

    def in_child() -> None:
        # A child of a background script inherits SIGINT ignored; a Prefect worker then ignores SIGTERM too.
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, int(when_orphaned))
        if os.getppid() != parent:
            os._exit(1)

    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))

    def fork() -> subprocess.Popen[bytes]:
        with open(log, "ab") as out:
            return subprocess.Popen(
                list(argv),
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
                group=group,
                extra_groups=[] if user is not None else None,
                preexec_fn=in_child,
            )

    forked = _spawner.submit(fork)
    try:
        return forked.result()
    except BaseException:
        with contextlib.suppress(Exception):  # interrupted while we waited: a child that nobody knows of must not stay
            forked.result(timeout=5).send_signal(when_orphaned)
        raise


def last_lines(log: Path, count: int = 15) -> str:
    """The end of a log, indented, for an error message."""
    try:
        with open(log, errors="replace") as lines:
            return "".join(f"    {line.rstrip()}\n" for line in deque(lines, maxlen=count)).rstrip() or "    (empty)"
    except FileNotFoundError:
        return "    (no log)"


def marked(prefix: str) -> list[psutil.Process]:
    """Live processes whose mark starts with `prefix`, ourselves excepted."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            mark = process.environ().get(MARK, "")
            if mark.startswith(prefix) and process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end_marked(prefix: str, *, grace_s: float = 3.0) -> list[str]:
    """TERM, then KILL every process with the mark until none is left; return what was ended, as "name (pid N)"."""
    ended = []
    deadline = time.monotonic() + grace_s
    while found := marked(prefix):
        late = time.monotonic() > deadline
        for process in found:
            with contextlib.suppress(psutil.Error):
                described = f"{process.name()} (pid {process.pid})"
                if late:
                    process.kill()
                elif described not in ended:
                    process.terminate()
                    ended.append(described)
        psutil.wait_procs(found, timeout=0.2)
    return ended


@dataclass(frozen=True)
class Service:
    """One supervised process. `healthy` says whether it can be used; `ready_timeout_s` bounds the first wait for that."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    healthy: Callable[[], bool] = lambda: True
    cwd: Path | None = None
    ready_timeout_s: float = 300.0  # a busy machine, and the first start of all, take their time


@dataclass
class _Running:
    service: Service
    process: subprocess.Popen[bytes]
    since: float
    deaths: deque[float] = field(default_factory=lambda: deque(maxlen=CRASH_LOOP))
    restart_at: float | None = None


class Supervisor:
    """Runs services, restarts those that die, stops them in reverse order. `report` gets one line per thing worth telling."""

    def __init__(self, logs: Path, *, report: Callable[[str], None], stack_id: str | None = None) -> None:
        self.stack_id = stack_id or secrets.token_hex(8)
        self._logs = logs
        self._report = report
        self._running: dict[str, _Running] = {}
        self._lock = threading.RLock()
        self._stopping = threading.Event()
        self._monitor = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def pid(self, name: str) -> int | None:
        """Process number of a service that runs now."""
        with self._lock:
            running = self._running.get(name)
            return running.process.pid if running and running.process.poll() is None else None

    def has(self, name: str) -> bool:
        """Whether it is to run: started and not stopped, be it down at the moment."""
        with self._lock:
            return name in self._running

    def start(self, service: Service) -> None:
        """Start it and keep it running; does not wait for its health."""
        with self._lock:
            if self._stopping.is_set():
                return
            if service.name in self._running:
                raise ValueError(f"{service.name} runs already")
            self._running[service.name] = _Running(service, self._spawn(service), time.monotonic())
            if not self._monitor.is_alive():
                self._monitor.start()

    def wait_ready(self, service: Service) -> float:
        """Wait until it is healthy and return the seconds that took. Refused, with the end of its log, when it dies first or is late."""
        begun = time.monotonic()
        while not service.healthy():
            with self._lock:
                running = self._running.get(service.name)
                if running is None:
                    raise Refused(f"{service.name} was stopped before it was ready")
                died = bool(running.deaths)
            if died:
                raise self._failure(service, "does not start")
            if time.monotonic() - begun > service.ready_timeout_s:
                raise self._failure(service, f"was not healthy within {service.ready_timeout_s:.0f} s")
            time.sleep(POLL_S)
        return time.monotonic() - begun

    def run(self, service: Service) -> float:
        """Run a command to its end and return the seconds it took. Refused, with the end of its log, when it fails or is late."""
        begun = time.monotonic()
        with self._lock:
            if self._stopping.is_set():
                raise Refused(f"{service.name} was stopped before it began")
            process = self._spawn(service)
        try:
            code = process.wait(service.ready_timeout_s)
        except subprocess.TimeoutExpired:
            raise self._failure(service, f"took over {service.ready_timeout_s:.0f} s") from None
        finally:
            self._end(service.name, process)
        if code:
            raise self._failure(service, "failed")
        return time.monotonic() - begun

    def stop(self, name: str) -> None:
        """Stop one service with all it started; nothing happens when it does not run."""
        with self._lock:
            running = self._running.pop(name, None)
        if running:
            self._end(name, running.process)

    def stop_all(self) -> None:
        """Stop everything, last started first. Nothing is restarted or started afterwards."""
        self._stopping.set()
        with self._lock:
            names = list(self._running)
        for name in reversed(names):
            self.stop(name)
        if self._monitor.is_alive() and threading.current_thread() is not self._monitor:
            self._monitor.join()
        end_marked(f"{self.stack_id}/")

    def _failure(self, service: Service, what: str) -> Refused:
        log = self.log(service.name)
        return Refused(f"{service.name} {what}; the end of {log}:\n{last_lines(log)}")

    def _spawn(self, service: Service) -> subprocess.Popen[bytes]:
        env = dict(service.env) | {MARK: f"{self.stack_id}/{service.name}/"}
        return spawn(service.argv, env=env, log=self.log(service.name), cwd=service.cwd)

    def _end(self, name: str, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.terminate()
            process.send_signal(signal.SIGCONT)  # one that is stopped takes its TERM only then
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(TERM_GRACE_S)
            if process.poll() is None:
                process.kill()
                process.wait()
        end_marked(f"{self.stack_id}/{name}/", grace_s=1.0)

    def _watch(self) -> None:
        while not self._stopping.wait(POLL_S * 2):
            with self._lock:
                for running in self._running.values():
                    self._revive(running)

    def _revive(self, running: _Running) -> None:
        """Restart a dead service after a delay that doubles with each death within CRASH_WINDOW_S."""
        now = time.monotonic()
        name = running.service.name
        if running.restart_at is None:
            code = running.process.poll()
            if code is None:
                return
            recent = [at for at in running.deaths if now - at < CRASH_WINDOW_S]
            running.deaths = deque([*recent, now], maxlen=CRASH_LOOP)
            delay_s = min(MAX_BACKOFF_S, 0.2 * 2 ** (2 * len(recent)))
            running.restart_at = now + delay_s
            cause = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
            self._report(f"{name} {cause} after {now - running.since:.1f} s; restarting in {delay_s:.1f} s")
            if len(running.deaths) == CRASH_LOOP:
                self._report(f"{name} keeps crashing; the end of {self.log(name)}:\n{last_lines(self.log(name))}")
        elif now >= running.restart_at:
            end_marked(f"{self.stack_id}/{name}/", grace_s=1.0)  # what the dead process left behind
            running.process, running.since, running.restart_at = self._spawn(running.service), now, None


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C meanwhile (main thread only): a second one must not cut the clean-up short."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
