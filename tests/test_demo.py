"""`mlrunbook demo` as a user starts it: it ends as the fault's truth says, and leaves nothing behind, interrupted or not."""

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

from mlrunbook.processes import MARK, marked
from tests.waiting import until

pytestmark = [pytest.mark.prefect, pytest.mark.stack]

CHECKOUT = Path(__file__).parents[1]
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


def demo(place: Path, *options: str) -> subprocess.Popen[str]:
    env = {key: value for key, value in os.environ.items() if not key.startswith(("MLRUNBOOK_", "PREFECT_"))}
    argv = [sys.executable, "-m", "mlrunbook.cli", "demo", "--seed", "1", *options]
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
    """Processes that one of the demo's parts started, and its folder."""
    processes = []
    for p in marked(""):
        with contextlib.suppress(psutil.NoSuchProcess):
            env = p.environ()
            processes += [f"{p.pid} {env[MARK]}"] if env.get("MLRUNBOOK_DATA_DIR", "").startswith(str(place)) else []
    return processes + [str(p) for p in place.glob("mlrunbook-demo-*")]


def test_concept_drift_is_answered_by_a_version_that_was_retrained_proved_and_approved(place: Path) -> None:
    """The one incident of the suite with everything real: Feast, a training process, the shadow, Prefect, the platform's own alert."""
    running = demo(place, "--fault", "concept-drift", "--approve", "auto", "--out", str(place / "out"))
    assert running.wait(230) == 0, (place / "said").read_text()
    summary = json.loads((place / "out" / "summary.json").read_text())
    assert set(summary) >= KEYS
    assert (summary["fault"], summary["status"], summary["applied_path"]) == ("concept-drift", "closed", "retrain")
    assert set(summary["seconds"]) == {"to_detect", "to_acknowledge", "to_contain", "to_resolve"}
    assert (summary["candidate"]["verdict"], summary["candidate"]["version"]) == ("promote", "v1.6.0")
    assert summary["f1"]["during"] < summary["f1"]["baseline"] * 0.8
    assert summary["f1"]["after"] > summary["f1"]["baseline"] * 0.95
    applied = summary["platform_applied"]
    assert applied == {"register": 1, "staging": 1, "promote": 1} | {k: n for k, n in applied.items() if not n}
    assert all((place / "out" / name).exists() for name in summary["files"])
    assert left_behind(place) == []


def test_ctrl_c_in_the_middle_leaves_nothing_behind(place: Path) -> None:
    running = demo(place)
    said = place / "said"
    until(lambda: "gateway:" in said.read_text(), timeout_s=60)  # parts run, others are on their way
    assert left_behind(place) != []
    running.send_signal(signal.SIGINT)
    assert running.wait(60) == 130, said.read_text()
    assert "Traceback" not in said.read_text()
    assert left_behind(place) == []
