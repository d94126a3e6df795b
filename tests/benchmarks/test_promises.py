"""The promises hold for a selection of what `python -m benchmarks promises` tries; and it sees each kind of defect when there is one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from benchmarks.promises import hostile, kills, outages
from benchmarks.promises.arena import Arena, arena
from benchmarks.promises.far import AFTER, AWAY, BEFORE, LOST, Plan
from benchmarks.promises.main import main
from benchmarks.promises.site import Site, site
from benchmarks.promises.stories import STORIES
from benchmarks.promises.tally import Tally
from mlrunbook.local.postgres import EmbeddedPostgres

pytestmark = pytest.mark.timeout(2400)  # the kills take 5 minutes on a quiet machine; each process has its own limit
KILLS, OUTAGES = 40, 8
BAD_RELEASE = STORIES[0]
ROLLBACK = "platform:POST rollback"


def test_whoever_is_killed_wherever_nothing_is_lost_doubled_missed_or_stuck(postgres: EmbeddedPostgres) -> None:
    tally = Tally(seed=1)
    kills.run(postgres, tally, kills=KILLS)
    assert tally.lines == []
    assert tally.figures["kills"] == KILLS


def test_whichever_part_is_away_the_incident_ends(postgres: EmbeddedPostgres) -> None:
    tally = Tally(seed=1)
    outages.run(postgres, tally, most=OUTAGES)
    assert tally.lines == []


@pytest.fixture(scope="module")
def attacked(postgres: EmbeddedPostgres) -> Iterator[Site]:
    with site(postgres) as here:
        yield here


@pytest.mark.parametrize("attack", hostile.ATTACKS, ids=lambda a: a.__name__.replace("_", " "))
def test_no_attack_gets_through(attacked: Site, attack: hostile.Attack) -> None:
    assert attack(attacked.fresh()) is False, attack.__doc__


class TestTheHarnessSees:
    """A check that cannot fail is a defect of its own."""

    @pytest.mark.parametrize(
        ("plant", "plan", "kind"),
        [
            ("drops a page", Plan(), "missed_pages"),
            ("sends again", Plan(), "double"),
            ("nobody takes over", Plan(ROLLBACK, 1, BEFORE), "stuck"),
            ("answers before it stores", Plan("store:alerts+incidents+leases+outbox+records+timeline", 1, BEFORE), "lost"),
        ],
    )
    def test_a_planted_defect(self, postgres: EmbeddedPostgres, plant: str, plan: Plan, kind: str) -> None:
        tally = Tally(seed=1)
        with arena(postgres, plant=plant) as here:
            if plant == "answers before it stores":
                first = next(n for n, _, w in here.run(BAD_RELEASE, Plan()).seen["calls"] if w and n.startswith("store:"))
                plan = Plan(first, 1, BEFORE)
            here.run(BAD_RELEASE, plan).judge(tally, again="this test")
        assert tally.counts[kind] > 0, tally.lines
        assert not tally.held

    @pytest.mark.parametrize("what", [BEFORE, AFTER, LOST])
    def test_the_same_point_without_a_defect(self, sound: Arena, what: str) -> None:
        tally = Tally(seed=1)
        outcome = sound.run(BAD_RELEASE, Plan(ROLLBACK, 1, what))
        outcome.judge(tally, again="this test")
        assert (outcome.seen["done"], outcome.killed) == (True, what != LOST)
        assert tally.held, tally.lines

    def test_a_part_that_is_away_for_ever(self, sound: Arena) -> None:
        tally = Tally(seed=1)
        away = Plan(ROLLBACK, 1, AWAY, "platform", 10_000_000.0)
        sound.run(BAD_RELEASE, away).judge(tally, again="this test", strict=False)
        assert tally.counts["stuck"] == 1

    def test_a_route_without_authentication_and_one_that_fails(self) -> None:
        app = FastAPI()

        @app.get("/unguarded")
        def read() -> str:
            return "everything"

        @app.get("/health")
        def broken() -> str:
            raise RuntimeError("not caught")

        said = list(hostile.fuzzed_service("a service", app, {}, Tally(seed=1), examples=2))
        assert len(said) == 2, said
        assert "without a token" in said[0]

    @pytest.fixture(scope="class")
    def sound(self, postgres: EmbeddedPostgres) -> Iterator[Arena]:
        with arena(postgres) as here:
            yield here


def test_a_plan_is_read_back_from_the_line_that_a_failure_prints() -> None:
    for plan in (
        Plan(ROLLBACK, 3, LOST),
        Plan("channel page:trigger", 1, AWAY, "channel page", 30.0),
        Plan("store:alerts+leases", 2, AFTER),
    ):
        assert Plan.parsed(plan.text) == plan


@pytest.mark.parametrize("given", [["earthquakes"], ["--kills", "-1"], ["--outages", "many"], ["hostile", "--only", "no_such_attack"]])
def test_what_makes_no_sense_is_refused(given: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(given)
