"""The supervisor: what dies comes back, what stops is gone with all it started, and a stranger is never touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mlrunbook.base.processes import MARK, Service, Supervisor, end_marked, marked
from mlrunbook.domain.errors import Refused
from tests.waiting import gone, until


def python(name: str, code: str, **options: object) -> Service:
    return Service(name, [sys.executable, "-S", "-c", code], dict(os.environ), **options)  # type: ignore[arg-type]


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def supervisor(tmp_path: Path, told: list[str]) -> Iterator[Supervisor]:
    supervisor = Supervisor(tmp_path / "logs", report=told.append)
    yield supervisor
    supervisor.stop_all()
    assert marked(supervisor.stack_id) == []


def test_a_service_that_dies_is_started_again_and_its_death_is_told(supervisor: Supervisor, told: list[str]) -> None:
    supervisor.start(python("sleeper", "import time; time.sleep(60)"))
    first = supervisor.pid("sleeper")
    assert first is not None
    os.kill(first, signal.SIGKILL)
    until(lambda: supervisor.pid("sleeper") not in (None, first))
    assert told[0].startswith("sleeper was killed by SIGKILL")


def test_a_service_that_never_starts_is_refused_with_the_end_of_its_log(supervisor: Supervisor) -> None:
    broken = python("broken", "raise SystemExit('no such model')", healthy=lambda: False)
    supervisor.start(broken)
    with pytest.raises(Refused, match=r"broken does not start; the end of .*broken.log:\n.*no such model"):
        supervisor.wait_ready(broken)


def test_a_service_that_is_late_is_refused(supervisor: Supervisor) -> None:
    late = python("late", "import time; time.sleep(60)", healthy=lambda: False, ready_timeout_s=0.2)
    supervisor.start(late)
    with pytest.raises(Refused, match=r"late was not healthy within 0 s"):
        supervisor.wait_ready(late)


def test_a_failing_command_is_refused_with_the_end_of_its_log(supervisor: Supervisor) -> None:
    supervisor.run(python("fine", "pass"))
    with pytest.raises(Refused, match=r"deploy failed; the end of .*deploy.log:\n.*not today"):
        supervisor.run(python("deploy", "raise SystemExit('not today')"))


STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open("pid", "w").write(str(os.getpid()))
time.sleep(60)
"""


def number_in(path: Path) -> int:
    until(lambda: path.exists() and path.read_text() != "")
    return int(path.read_text())


def test_stop_ends_grandchildren_in_sessions_of_their_own_even_those_that_ignore_term(supervisor: Supervisor, tmp_path: Path) -> None:
    code = f"import subprocess,sys,time; subprocess.Popen([sys.executable,'-S','-c',{STUBBORN!r}], start_new_session=True); time.sleep(60)"
    supervisor.start(python("worker", code, cwd=tmp_path))
    grandchild = number_in(tmp_path / "pid")
    supervisor.stop("worker")
    until(lambda: gone(grandchild))
    assert supervisor.pid("worker") is None


def test_a_service_that_hangs_stopped_ends_in_order_when_told(supervisor: Supervisor, tmp_path: Path) -> None:
    """SIGTERM alone waits until somebody continues it, and it would be killed without its last words."""
    ended = tmp_path / "ended"
    last_words = f"signal.signal(signal.SIGTERM, lambda *_: (open({str(ended)!r}, 'w').close(), sys.exit()))"
    supervisor.start(python("hung", f"import signal, sys, time; {last_words}; print('up', flush=True); time.sleep(60)"))
    until(lambda: supervisor.log("hung").exists() and "up" in supervisor.log("hung").read_text())
    pid = supervisor.pid("hung")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    supervisor.stop("hung")
    assert ended.exists()


def test_children_have_default_signals_even_when_we_ignore_interrupts(supervisor: Supervisor, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        report = tmp_path / "signals"
        supervisor.run(python("signals", f"import signal; open({str(report)!r},'w').write(str(signal.getsignal(signal.SIGINT)))"))
        assert "default_int_handler" in report.read_text()
    finally:
        signal.signal(signal.SIGINT, before)


def test_children_outlive_the_thread_that_started_them(supervisor: Supervisor) -> None:
    thread = threading.Thread(target=supervisor.start, args=[python("sleeper", "import time; time.sleep(60)")])
    thread.start()
    thread.join()
    pid = supervisor.pid("sleeper")
    assert pid is not None
    with pytest.raises(psutil.TimeoutExpired):
        psutil.Process(pid).wait(0.3)


def test_kill_9_of_the_supervisor_ends_its_children_and_the_mark_finds_the_rest(tmp_path: Path) -> None:
    script = f"""
import os, sys, time
from pathlib import Path
from mlrunbook.base.processes import Service, Supervisor
supervisor = Supervisor(Path("logs"), report=print, stack_id="mark-under-test")
supervisor.start(Service("plain", ["sleep", "60"], dict(os.environ)))
supervisor.start(Service("orphan", [sys.executable, "-S", "-c", {STUBBORN!r}], dict(os.environ)))
print(supervisor.pid("plain"), flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert parent.stdout is not None
    plain = int(parent.stdout.readline())
    orphaned = number_in(tmp_path / "pid")
    stranger = subprocess.Popen(["sleep", "60"], env={**os.environ, MARK: "another-stack/plain"})
    try:
        parent.kill()
        parent.wait()
        until(lambda: gone(plain))
        assert not gone(orphaned)
        end_marked("mark-under-test/", grace_s=0.1)
        until(lambda: gone(orphaned))
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
