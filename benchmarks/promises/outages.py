"""Each part away for a second, half a minute and five minutes, from each kind of call on: the incident still ends, and nothing is lost."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable, Iterator, Sequence

from benchmarks.promises.arena import Arena, Case, arena, shared_out
from benchmarks.promises.far import AWAY, Plan
from benchmarks.promises.kills import rehearsed
from benchmarks.promises.stories import STORIES, Story
from benchmarks.promises.tally import Tally
from mlrunbook.local.postgres import EmbeddedPostgres

SPANS_S = (1.0, 30.0, 300.0)
TRANSACTIONS = (1, 8, 20, 40, 70, 110, 160, 220)  # of a run, from which the store is away
PARTS = ("platform", "cluster", "prefect", "features", "trainer")


def cases(found: dict[Story, Sequence[tuple[str, int, bool]]]) -> Iterator[Case]:
    """Each part, from each kind of its calls on; the store and the model server from all along a run."""
    seen: set[tuple[str, str]] = set()
    for story, calls in found.items():
        for name, nth, part in _beginnings(calls):
            if (part, name) not in seen:
                seen.add((part, name))
                yield from ((story, Plan(name, nth, AWAY, part, s)) for s in SPANS_S)
    for nth in TRANSACTIONS:
        yield from ((STORIES[0], Plan("store:transaction", nth, AWAY, "store", s)) for s in SPANS_S)


def _beginnings(calls: Iterable[tuple[str, int, bool]]) -> Iterator[tuple[str, int, str]]:
    for name, nth, _ in calls:
        part = name.partition(":")[0]
        if part in PARTS or part.startswith("channel"):
            yield name, nth, part
        if part in ("platform", "cluster"):
            yield name, nth, "model server"


def judged(here: Arena, some: Sequence[Case], tally: Tally) -> None:
    for story, plan in some:
        outcome = here.run(story, plan)
        outcome.judge(tally, again=f"outages --at {story.name} '{plan.text}'", strict=False)
        tally.add(outages=1, outages_not_reached=not outcome.seen["done"], outages_fixed_by_people=outcome.seen["repaired"])


def run(postgres: EmbeddedPostgres, tally: Tally, *, most: int | None = None) -> None:
    begun_s = time.monotonic()
    with arena(postgres) as here:
        found = {story: rehearsed(here, story, tally) for story in STORIES}
    some = list(cases(found))
    if most is not None:
        some = random.Random(tally.seed).sample(some, min(most, len(some)))  # noqa: S311 - a choice that can be repeated
    shared_out(postgres, some, judged, tally)
    tally.note(outages_s=round(time.monotonic() - begun_s))
