"""The training command: once a version, within its limits, ended with all it started."""

from __future__ import annotations

import os
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlrunbook.adapters.local.training_process import TrainingProcess
from mlrunbook.base.processes import MARK, marked
from mlrunbook.domain.errors import Fenced, Invalid, NotFound, Refused
from mlrunbook.domain.policy.policy import Training
from tests.waiting import until

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, 12, 30, tzinfo=UTC)


class Bench:
    """A trainer of small commands, and what they printed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lines = folder, list[str]()

    def train(
        self, code: str, *arguments: str, version: str = "v2.1.0", model: str = "m", alive: Any = lambda: True, **limits: Any
    ) -> None:
        command = limits.pop("command", (sys.executable, "-S", "-c", code, *arguments))
        window = {"start": limits.pop("start", START), "end": END}
        env = dict(os.environ) | {MARK: f"{self.folder.name}/"}
        trainer = TrainingProcess(Training(command=command, **limits), self.folder, home=self.folder, env=env)
        trainer.train(model, version=version, **window, log=self.lines.append, alive=alive)

    def left(self) -> list[psutil.Process]:
        return marked(f"{self.folder.name}/")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_the_command_gets_its_window_model_and_version_and_its_lines_are_streamed(bench: Bench) -> None:
    bench.train(
        "import sys; print(*sys.argv[1:], sep='\\n'); print('no newline', end='')",
        "{start_date}",
        "--to={end_date}",
        "{model_name}-{version}",
    )
    assert bench.lines == ["2026-01-01T00:00:00+00:00", "--to=2026-02-01T12:30:00+00:00", "m-v2.1.0", "no newline"]


def test_an_argument_is_never_read_by_a_shell(bench: Bench) -> None:
    bench.train("import sys; print(sys.argv[1])", "$(touch ran); `id` && rm {version}")
    assert bench.lines == ["$(touch ran); `id` && rm v2.1.0"]
    assert not (bench.folder / "ran").exists()


@pytest.mark.parametrize("name", ["../v2", "-rf", "v2 --seed 1", "", "v2\n", "a" * 65])
def test_a_name_that_could_be_an_option_or_a_path_runs_nothing(bench: Bench, name: str) -> None:
    for given in ({"version": name}, {"model": name}):
        with pytest.raises(Invalid):
            bench.train("open('ran', 'w')", **given)  # type: ignore[arg-type]
    assert list(bench.folder.iterdir()) == []


def test_an_unknown_placeholder_is_refused_by_name(bench: Bench) -> None:
    with pytest.raises(Invalid, match=r"\{startdate\}"):
        bench.train("pass", "{startdate}")


def test_a_program_that_is_not_there_is_not_found(bench: Bench) -> None:
    with pytest.raises(NotFound, match="no-such-program"):
        bench.train("pass", command=("no-such-program", "{version}"))


def test_a_finished_training_is_not_run_again_and_never_on_another_window(bench: Bench) -> None:
    code = "open('runs', 'a').write('x')"
    bench.train(code)
    bench.train(code)
    bench.train(code, start=START.astimezone(timezone(timedelta(hours=2))))  # the same moment
    with pytest.raises(Refused, match="choose another version"):
        bench.train(code, start=START - timedelta(days=1))
    assert (bench.folder / "runs").read_text() == "x"


def test_a_failing_command_is_refused_with_its_last_lines_and_may_be_run_again(bench: Bench) -> None:
    with pytest.raises(Refused, match="exit code 3") as failed:
        bench.train("import sys; print('reading'); print('no failures in the data'); sys.exit(3)")
    assert "no failures in the data" in str(failed.value)
    bench.train("print('worked')")
    assert bench.lines[-1] == "worked"


FAMILY = (
    "import subprocess, sys, time; subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)'], start_new_session=True)"
)


def test_a_replaced_run_ends_the_command_and_all_it_started(bench: Bench) -> None:
    with pytest.raises(Fenced):
        bench.train(f"{FAMILY}; print('up'); time.sleep(60)", alive=lambda: "up" not in bench.lines)
    assert bench.left() == []


def test_a_command_that_leaves_a_process_behind_is_tidied_up(bench: Bench) -> None:
    bench.train(FAMILY)
    assert bench.left() == []


def test_memory_over_the_limit_ends_it(bench: Bench) -> None:
    with pytest.raises(Refused, match=r"over 64 \(training.memory_limit_mb\)"):
        bench.train("import time; held = bytearray(120_000_000); print('full'); time.sleep(60)", memory_limit_mb=64)
    assert bench.left() == []


def test_time_over_the_limit_ends_it(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlrunbook.adapters.local import training_process

    now = iter([0.0, *(61.0 for _ in range(1000))])
    monkeypatch.setattr(training_process.time, "monotonic", lambda: next(now))
    with pytest.raises(Refused, match="took over 1 min"):
        bench.train("import time; time.sleep(60)", timeout_min=1)
    monkeypatch.undo()
    assert bench.left() == []


def test_two_runs_of_one_version_train_once(bench: Bench) -> None:
    code = "import time; open('runs', 'a').write('x'); time.sleep(0.5)"
    second = Bench(bench.folder)
    first = threading.Thread(target=bench.train, args=(code,))
    first.start()
    until(lambda: (bench.folder / "runs").exists())
    second.train(code)
    first.join()
    assert (bench.folder / "runs").read_text() == "x"
    assert second.lines[0] == "another run is training v2.1.0: waiting for it"


def test_our_own_command_runs_by_this_interpreter(bench: Bench) -> None:
    bench.train("pass", command=("mlrunbook", "--help"))
    assert any("incident-response runbook" in line for line in bench.lines)
