"""Before a rollback is proposed every version answers the same requests."""

from __future__ import annotations

import pytest

from mlrunbook.domain.errors import NotFound
from mlrunbook.steps import rollback_target, triage
from mlrunbook.steps.lifecycle import take
from mlrunbook.steps.run import Run
from mlrunbook.wiring import World
from tests.fakes import FileWorld
from tests.steps.people import report, told
from tests.steps.protocol import no_sleep


@pytest.fixture
def run(world: World) -> Run:
    run = take(world, report(world), "run-1")
    assert run is not None
    triage.triage(run, sleep=no_sleep)
    return run


def test_the_version_that_wins_is_recorded_once(run: Run, file_world: FileWorld) -> None:
    chosen = rollback_target.choose(run)
    assert chosen["target"] == "v1.5.0"
    assert [(v["version"], v["judged"]) for v in chosen["ranking"]] == [("v1.5.0", "accepted"), ("v1.4.0", "accepted")]
    file_world.set(unreadable={"v1.5.0": "gone"})
    assert rollback_target.choose(run) == chosen
    assert [t for t in told(run.world, run.incident_id, "diagnosis") if t.startswith("Rollback targets: v1.5.0 is the target")]


def test_an_unreadable_version_gives_way_to_the_next_best(run: Run, file_world: FileWorld) -> None:
    file_world.set(unreadable={"v1.5.0": "its artefact was changed after it was saved"})
    chosen = rollback_target.choose(run)
    assert chosen["target"] == "v1.4.0"
    assert "changed after it was saved" in chosen["ranking"][-1]["sentence"]


def test_versions_as_bad_as_the_current_one_are_refused(run: Run, file_world: FileWorld) -> None:
    file_world.set(bad_versions=dict.fromkeys(("v1.4.0", "v1.5.0", "v2.0.0"), "degraded"))
    chosen = rollback_target.choose(run)
    assert (chosen["target"], chosen["not_enough_evidence"]) == (None, False)


def test_a_platform_that_cannot_replay_leaves_it_open(run: Run, file_world: FileWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise NotFound("no such route")

    monkeypatch.setattr(file_world, "replay", gone)
    chosen = rollback_target.choose(run)
    assert (chosen["target"], chosen["not_enough_evidence"]) == (None, True)


def test_a_platform_that_does_not_answer_leaves_it_open_and_stops_nobody(run: Run, file_world: FileWorld) -> None:
    file_world.down = True
    chosen = rollback_target.choose(run)
    assert (chosen["target"], chosen["not_enough_evidence"]) == (None, True)
    assert "nothing answers" in chosen["sentence"]
