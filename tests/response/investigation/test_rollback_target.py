"""Before a rollback is proposed every version answers the same requests."""

from __future__ import annotations

import pytest

from mlrunbook.domain.actions import Path, Plan
from mlrunbook.domain.detection.reports import NewReport
from mlrunbook.domain.errors import NotFound
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.resolution.plan_page import plan_markdown
from mlrunbook.domain.resolution.request import Request
from mlrunbook.response.detection import triage
from mlrunbook.response.investigation import rollback_target
from mlrunbook.response.lifecycle.opening import open_or_join
from mlrunbook.response.lifecycle.runs import take
from mlrunbook.response.run import Run
from mlrunbook.response.world import World
from tests.fakes import MODEL, FileWorld, LedgerNotifier
from tests.response.carrying import carry
from tests.response.people import deliver, plan, report, told


@pytest.fixture
def run(world: World) -> Run:
    run = take(world, report(world), "run-1")
    assert run is not None
    triage.triage(run)
    return run


def test_the_version_that_wins_is_recorded_once(run: Run, file_world: FileWorld) -> None:
    chosen = rollback_target.choose(run)
    assert chosen.target == "v1.5.0"
    assert [(v.version, v.judged) for v in chosen.ranking] == [("v1.5.0", "accepted"), ("v1.4.0", "accepted")]
    file_world.set(unreadable={"v1.5.0": "gone"})
    assert rollback_target.choose(run) == chosen
    assert [t for t in told(run.world, run.incident_id, "diagnosis") if t.startswith("Rollback targets: v1.5.0 is the target")]


def test_an_unreadable_version_gives_way_to_the_next_best(run: Run, file_world: FileWorld) -> None:
    file_world.set(unreadable={"v1.5.0": "its artefact was changed after it was saved"})
    chosen = rollback_target.choose(run)
    assert chosen.target == "v1.4.0"
    assert "changed after it was saved" in chosen.ranking[-1].sentence


def test_versions_as_bad_as_the_current_one_are_refused(run: Run, file_world: FileWorld) -> None:
    file_world.set(bad_versions=dict.fromkeys(("v1.4.0", "v1.5.0", "v2.0.0"), "degraded"))
    chosen = rollback_target.choose(run)
    assert (chosen.target, chosen.not_enough_evidence) == (None, False)


def test_a_platform_that_cannot_replay_leaves_it_open(run: Run, file_world: FileWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise NotFound("no such route")

    monkeypatch.setattr(file_world, "replay", gone)
    chosen = rollback_target.choose(run)
    assert (chosen.target, chosen.not_enough_evidence) == (None, True)


def test_a_platform_that_does_not_answer_leaves_it_open_and_stops_nobody(run: Run, file_world: FileWorld) -> None:
    file_world.down = True
    chosen = rollback_target.choose(run)
    assert (chosen.target, chosen.not_enough_evidence) == (None, True)
    assert "nothing answers" in chosen.sentence


class TestAskedForByName:
    """A person names the version. What the comparison says against it stands first in plan, form and page."""

    def asked(self, world: World, version: str) -> Plan:
        wish = Request(path=Path.ROLLBACK, target_version=version, by="the lead", reason="planners trust it")
        kind = IncidentType.PERFORMANCE_DEGRADATION
        said = NewReport(MODEL, Severity.MEDIUM, kind, f"back to {version}", "", "the lead")
        incident_id = open_or_join(world, said, wish)
        assert carry(world, incident_id, "run-1") == "pending"
        made = plan(world, incident_id)
        assert made is not None
        return made

    @pytest.mark.parametrize(
        ("version", "world_is", "against"),
        [
            ("v1.5.0", {"bad_versions": dict.fromkeys(("v1.4.0", "v1.5.0", "v2.0.0"), "degraded")}, "v1.5.0 is no better than v2.0.0 (F1 "),
            ("v1.4.0", {"bad_versions": dict.fromkeys(("v1.4.0", "v2.0.0"), "degraded")}, "v1.4.0 is no better than v2.0.0 (F1 "),
            ("v1.5.0", {"unreadable": {"v1.5.0": "its artefact was changed"}}, "v1.5.0 does not qualify: its artefact was changed"),
            ("v2.0.0", {}, "v2.0.0 is the version that this incident is about"),
        ],
    )
    def test_what_speaks_against_it_is_read_first(
        self, world: World, file_world: FileWorld, notifier: LedgerNotifier, version: str, world_is: dict[str, object], against: str
    ) -> None:
        file_world.set(**world_is)
        made = self.asked(world, version)
        assert against in made.reasons[0]
        assert made.reasons[1].startswith("the lead asked for it anyway: planners trust it")
        form = plan_markdown(made)
        assert against in form.replace("\\", "")
        assert form.index("Read this first") < form.index("What will be done")
        deliver(world)
        (page,) = [m for m in notifier.pages() if f"--plan {made.digest[:12]}" in m.body]
        assert page.body.index(against) < page.body.index("your decision is needed")

    def test_a_platform_that_cannot_compare_is_said_to(self, world: World, file_world: FileWorld, monkeypatch: pytest.MonkeyPatch) -> None:
        def gone(*_: object, **__: object) -> None:
            raise NotFound("no such route")

        monkeypatch.setattr(file_world, "replay", gone)
        first = self.asked(world, "v1.5.0").reasons[0]
        assert first.startswith("Nobody knows whether v1.5.0 is better: it was not compared with v2.0.0")
        assert "no such route" in first

    def test_nothing_is_said_against_a_version_that_has_proved_better(self, world: World) -> None:
        made = self.asked(world, "v1.5.0")
        assert made.reasons[0].startswith("the lead asks for this path: planners trust it")
        assert "objection" not in made.facts
        assert "Read this first" not in plan_markdown(made)
