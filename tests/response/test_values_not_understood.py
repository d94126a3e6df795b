"""One value of one answer is not what it should be: the incident goes on, and nothing is changed by itself because of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from mlrunbook.domain.incident import Severity, Status
from mlrunbook.domain.records import Record
from mlrunbook.response.world import World
from mlrunbook.store import timeline
from tests import answering_platform as answering
from tests.fakes import MODEL, Clock, FileWorld, empty_store, world_of
from tests.response.carrying import PENDING, carry
from tests.response.people import incident_of, recorded, report

READ = ("status", "metrics", "predictions/logs", "changes", "versions", "replay", "work-orders", "schedules")
NEVER_UNDERSTOOD = (math.nan, math.inf, None, ["x"], {"a": 1}, -1, -(10**30), 10**30, 1e300)
INCIDENTS: dict[str, Callable[[FileWorld], None]] = {
    "a bad release": lambda world: None,
    "a release that flags everything": lambda world: world.set(bad_versions={"v2.0.0": "dangerous"}),
    "a threshold that slipped": lambda world: world.slip(),
    "a model that is well": lambda world: world.set(bad_versions={}),
}


class Scene:
    """One incident, carried as far as it goes without a person."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.folder, self.number = engine, folder, 0
        self.known: dict[Any, set[str]] = {}

    def carried(self, kind: str, spoil: answering.Spoil) -> tuple[World, str, set[str]]:
        """The world afterwards, the incident, and what was changed."""
        self.number += 1
        clock = Clock()
        file_world = FileWorld(self.folder / f"{self.number}.json", clock)
        file_world.set(work_orders=[{"id": 1, "asset": "asset_1", "flagged": False}])
        INCIDENTS[kind](file_world)
        empty_store(self.engine)
        world = replace(world_of(self.engine, file_world, clock), platform=answering.platform(file_world, spoil), known_models=None)
        incident_id = report(world, Severity.HIGH)
        carry(world, incident_id, "run-1")
        return world, incident_id, set(file_world.applied)

    def changed(self, kind: str, *, without: str = "") -> set[str]:
        """What the runbook changes by itself where everything is understood, or all but one answer."""
        key = (kind, without)
        if key not in self.known:
            self.known[key] = self.carried(kind, lambda name, whole: ["of another shape"] if name == without else whole)[2]
        return self.known[key]


@pytest.fixture(scope="module")
def scene(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(engine, tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, answering.Path]]:
    world = FileWorld(tmp_path_factory.mktemp("world") / "world.json", Clock())
    world.set(work_orders=[{"id": 1, "asset": "asset_1", "flagged": False}])
    found = answering.answers(world, MODEL)
    return [(name, path) for name in READ for path in answering.paths(found[name])]


@pytest.mark.parametrize("kind", INCIDENTS)
@settings(max_examples=3, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate), report_multiple_bugs=False)
@given(data=st.data())
def test_triage_investigation_and_plan_end_and_nothing_changes_on_a_value_that_was_not_understood(
    scene: Scene, places: list[tuple[str, answering.Path]], kind: str, data: st.DataObject
) -> None:
    answer, path = data.draw(st.sampled_from(places), label="place")
    value = data.draw(st.sampled_from(NEVER_UNDERSTOOD), label="value")
    assume((answer, path, value) != ("status", ("previousVersion",), None))  # which is understood: nothing served before
    world, incident_id, changed = scene.carried(
        kind, lambda name, whole: answering.spoiled(whole, path, value) if name == answer else whole
    )
    status = incident_of(world, incident_id).status
    assert status is not Status.DETECTED
    if status is not Status.FALSE_ALARM:
        assert recorded(world, incident_id, Record.DIAGNOSIS)
        assert recorded(world, incident_id, Record.RESOLUTION_PLAN)
    assert changed <= scene.changed(kind) | scene.changed(kind, without=answer)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1])
@pytest.mark.parametrize("field", ["previousVersion", "servingVersion"])
def test_what_served_before_is_no_guess(scene: Scene, field: str, value: Any) -> None:
    """Where it is not understood, a model that flags everything is neither stopped nor routed elsewhere by itself."""
    kind = "a release that flags everything"
    _, _, changed = scene.carried(kind, lambda name, whole: answering.spoiled(whole, (field,), value) if name == "status" else whole)
    assert not {one for one in changed if one.startswith(("scale", "route"))}


@pytest.mark.parametrize("field", ["label_delay_s", "latency_p95_ms", "flagged_share"])
def test_a_figure_that_is_no_number_is_not_stored_and_stops_nothing(world: World, file_world: FileWorld, field: str) -> None:
    """An adapter of a team's own that lets it through."""
    asked = file_world.metrics

    def metrics(*args: Any, **how: Any) -> Any:
        found = asked(*args, **how)
        return replace(found, current=replace(found.current, **{field: math.nan}))

    file_world.metrics = metrics  # type: ignore[method-assign]
    incident_id = report(world)
    assert carry(world, incident_id, "run-1") == PENDING, "the rollback waits for its approval"


@pytest.mark.parametrize(
    ("read", "spoil"),
    [
        ("prediction_log", lambda rows: [replace(rows[0], asset_id=None), *rows[1:]]),
        ("prediction_log", lambda rows: [replace(rows[0], features={"torque_nm": 10**400}), *rows[1:]]),
        ("prediction_log", lambda rows: [replace(rows[0], at=None), *rows[1:]]),
        ("changes", lambda found: [replace(found[0], at="yesterday"), *found[1:]]),
        ("versions", lambda found: [None, *found]),
        ("replay", lambda found: replace(found, rows=())),
        ("resources", lambda _: {}),
        ("instances", lambda _: [None]),
        ("revisions", lambda _: [None]),
        ("work_orders", lambda _: [None]),
    ],
)
def test_an_error_that_nobody_expected_in_one_check_leaves_its_items_unknown(
    world: World, file_world: FileWorld, read: str, spoil: Callable[[Any], Any], caplog: pytest.LogCaptureFixture
) -> None:
    asked = getattr(file_world, read)
    setattr(file_world, read, lambda *args, **how: spoil(asked(*args, **how)))
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    assert recorded(world, incident_id, Record.DIAGNOSIS)
    assert recorded(world, incident_id, Record.RESOLUTION_PLAN)
    rows = [one for source in ("recent_changes", "data_quality", "infrastructure", "ground_truth") for one in
            recorded(world, incident_id, Record.FINDINGS.of(source))["findings"]]  # fmt: skip
    broken = [one for one in rows if "unexpectedly" in one["sentence"]]
    assert {one["state"] for one in broken} <= {"unknown"}
    with world.transaction() as conn:
        said = " ".join(row.text for row in timeline.read(conn, incident_id))
    assert "Traceback" not in said
    assert bool(broken) == ("Check left out" in said)


def test_a_check_that_an_unexpected_error_stops_is_named_in_the_review(world: World, file_world: FileWorld) -> None:
    file_world.resources = lambda model: {}  # type: ignore[method-assign,assignment,return-value]
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    with world.transaction() as conn:
        kinds = {row.kind for row in timeline.read(conn, incident_id) if "Verify resource utilization" in row.text}
    assert kinds == {"diagnosis"}, "of the kind that the review shows"
