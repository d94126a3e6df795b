"""`mlrunbook gameday` and `demo` as a user starts them: right answers, and nothing left behind, interrupted or not."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from mlrunbook.base.processes import MARK, marked
from tests.waiting import until

pytestmark = [pytest.mark.prefect, pytest.mark.stack]

CHECKOUT = Path(__file__).parents[2]
KEYS = {
    "incident_id",
    "model",
    "fault",
    "type",
    "severity",
    "status",
    "recommended_path",
    "applied_path",
    "f1",
    "seconds",
    "actions",
    "pages",
    "approvals",
    "files",
}


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of its own in /tmp for the demo's temporary folder: PostgreSQL must be able to enter it."""
    with tempfile.TemporaryDirectory(prefix="mlrb-demo-test-", dir="/tmp") as folder:
        yield Path(folder)


def command(place: Path, *arguments: str) -> subprocess.Popen[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MLRUNBOOK_", "PREFECT_"))}
    argv = [sys.executable, "-m", "mlrunbook.cli", *arguments]
    out = open(place / "said", "w")  # noqa: SIM115
    with out:
        return subprocess.Popen(
            argv,
            cwd=CHECKOUT,
            env=env | {"TMPDIR": str(place), "COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background inherit it ignored
        )


def left_behind(place: Path) -> list[str]:
    """Processes that one of its parts started, and its folder."""
    processes = []
    for p in marked(""):
        with contextlib.suppress(psutil.NoSuchProcess):
            env = p.environ()
            processes += [f"{p.pid} {env[MARK]}"] if env.get("MLRUNBOOK_DATA_DIR", "").startswith(str(place)) else []
    return processes + [str(p) for p in place.glob("mlrunbook-*")]


@pytest.mark.timeout(2000)  # two incidents with Feast from alert to review: a busy machine takes its time
def test_a_game_day_answers_stale_features_by_path_b_and_concept_drift_by_path_c_on_one_stack(place: Path) -> None:
    """Incidents with everything real: Feast, a training process, the shadow, Prefect, the platform's own alerts."""
    out = place / "out"
    running = command(place, "gameday", "--fault", "stale-features", "--fault", "concept-drift", "--out", str(out), "--seed", "1")
    assert running.wait(1800) == 0, (place / "said").read_text()
    day = json.loads((out / "gameday.json").read_text())
    assert day["score"] == {"runs": 2, "top1": 1.0, "top3": 1.0, "right_path": 1.0, "harmful_actions": 0}
    stale, drift = day["runs"]
    # How much of the first look's window was still sound is a matter of seconds, and so is high or critical.
    assert [d for d in stale["differences"] if not d.startswith(("severity is high", "type is performance_degradation"))] == []
    assert drift["differences"] == []
    assert (stale["path"], drift["path"]) == ("materialize", "retrain")
    for row, limit in ((stale, 0.5), (drift, 0.8)):
        assert row["f1"]["during"] < row["f1"]["baseline"] * limit
        assert row["f1"]["after"] > row["f1"]["baseline"] * 0.95
    summary = json.loads((out / "002-concept-drift" / "summary.json").read_text())
    assert set(summary) >= KEYS
    assert (summary["candidate"]["verdict"], summary["candidate"]["version"]) == ("promote", "v1.6.0")
    applied = summary["platform_applied"]
    assert applied == {"register": 1, "staging": 1, "promote": 1} | {k: n for k, n in applied.items() if not n}
    assert all((out / "002-concept-drift" / name).exists() for name in summary["files"])
    assert left_behind(place) == []


def test_ctrl_c_in_the_middle_of_a_demo_leaves_nothing_behind(place: Path) -> None:
    running = command(place, "demo")
    said = place / "said"
    until(lambda: "schema and tokens:" in said.read_text())  # parts run, others are on their way
    assert left_behind(place) != []
    running.send_signal(signal.SIGINT)
    assert running.wait(120) == 130, said.read_text()
    assert "Traceback" not in said.read_text()
    assert left_behind(place) == []
