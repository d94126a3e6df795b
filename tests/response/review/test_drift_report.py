"""The drift report: drawn once after resolution, and never in the way of anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mlrunbook.domain.errors import Refused
from mlrunbook.domain.evaluation.drift import DriftVerdict
from mlrunbook.response.lifecycle.runs import take
from mlrunbook.response.review import drift_report
from mlrunbook.response.run import Run
from mlrunbook.response.world import World
from mlrunbook.store import evidence
from tests.fakes import FileWorld
from tests.response.people import report, told


@pytest.fixture
def run(world: World) -> Run:
    taken = take(world, report(world), "run-1")
    assert taken is not None
    return taken


def drawing(run: Run, draw: Callable[..., bytes]) -> Run:
    return replace(run, world=replace(run.world, draw_drift_page=draw))


def kept(run: Run) -> tuple[bytes, str] | None:
    with run.world.transaction() as conn:
        return evidence.content(conn, run.incident_id, drift_report.NAME)


def test_the_report_is_drawn_once_and_kept_with_the_evidence(run: Run) -> None:
    drawn: list[DriftVerdict] = []

    def draw(old: Any, new: Any, verdict: DriftVerdict) -> bytes:
        assert set(old) == set(new) == {"asset_type", "torque_nm", "tool_wear_min"}
        drawn.append(verdict)
        return b"<p>page</p>"

    assert drift_report.keep(drawing(run, draw)) == drift_report.NAME
    assert drift_report.keep(drawing(run, draw)) == drift_report.NAME
    assert len(drawn) == 1
    assert kept(run) == (b"<p>page</p>", "text/html")
    assert told(run.world, run.incident_id, "evidence") == [f"Drift report kept as {drift_report.NAME}: {drawn[0].sentence}"]


@pytest.mark.parametrize("error", [Refused("not drawn within 90 s"), KeyError("a bug of the drawing library")])
def test_a_report_that_cannot_be_drawn_is_a_note_on_the_timeline_and_not_tried_again(run: Run, error: Exception) -> None:
    def draw(*_: Any) -> bytes:
        raise error

    assert drift_report.keep(drawing(run, draw)) is None
    assert drift_report.keep(drawing(run, lambda *_: b"never")) is None
    assert kept(run) is None
    (note,) = told(run.world, run.incident_id, "evidence")
    assert note.startswith("No drift report: ")
    assert str(error) in note


def test_without_a_prediction_log_there_is_a_note_instead_of_a_report(run: Run, file_world: FileWorld) -> None:
    file_world.down = True
    assert drift_report.keep(drawing(run, lambda *_: b"never")) is None
    assert len(told(run.world, run.incident_id, "evidence")) == 1
