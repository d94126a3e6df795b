"""kill -9 around every call of the runbook, and changes whose answer is lost: whoever takes over carries on, and nothing is done twice."""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

from benchmarks.promises.arena import Arena, arena, shared_out
from benchmarks.promises.far import AFTER, BEFORE, LOST, Plan
from benchmarks.promises.stories import STORIES, Story
from benchmarks.promises.tally import Tally
from mlrunbook.local.postgres import EmbeddedPostgres

Case = tuple[Story, Plan]


def rehearsed(arena: Arena, story: Story, tally: Tally) -> list[tuple[str, int, bool]]:
    """Its calls, (name, nth, writes), from a run in which nothing goes wrong. In this process: children inherit what it has compiled."""
    outcome = arena.run(story, Plan(), here=True)
    outcome.judge(tally, again=f"kills --at {story.name} '{outcome.plan.text}'")
    return [(name, nth, writes) for name, nth, writes in outcome.seen["calls"]]


def plans(calls: Iterable[tuple[str, int, bool]]) -> Iterator[Plan]:
    """Around changes, deliveries, starts of runs and transactions: before, after, and done with the answer lost; around reads: before."""
    for name, nth, writes in calls:
        yield Plan(name, nth, BEFORE)
        if writes:
            yield Plan(name, nth, AFTER)
            if not name.startswith("store:"):
                yield Plan(name, nth, LOST)


def chosen(found: dict[Story, Sequence[Plan]], kills: int, seed: int) -> list[Case]:
    """Each kind of damage to each kind of call once, changes to production first, taken from the stories in turn; then others."""
    dice = random.Random(seed)  # noqa: S311 - a choice that can be repeated
    first: dict[Story, list[Plan]] = defaultdict(list)
    rest: list[Case] = []
    seen: set[tuple[str, str]] = set()
    for story, some in found.items():
        for plan in some:
            if (kind := (plan.name, plan.what)) in seen:
                rest.append((story, plan))
            else:
                first[story].append(plan)
                seen.add(kind)
    in_turn = zip_longest(*([(s, p) for p in sorted(some, key=lambda p: (_rank(p), dice.random()))] for s, some in first.items()))
    dice.shuffle(rest)
    return [*(case for turn in in_turn for case in turn if case), *rest][:kills]


def _rank(plan: Plan) -> int:
    """Changes to production, then deliveries and starts, then the store, then reads."""
    part, _, what = plan.name.partition(":")
    if part in ("platform", "cluster", "features", "trainer"):
        return 0 if what.startswith(("POST", "PATCH", "DELETE", "materialize", "train")) else 3
    return 2 if part == "store" else 1


def judged(arena: Arena, cases: Sequence[Case], tally: Tally) -> None:
    for story, plan in cases:
        outcome = arena.run(story, plan)
        outcome.judge(tally, again=f"kills --seed {tally.seed} --at {story.name} '{plan.text}'")
        tally.add(kills=1, kills_cpu_s=outcome.took_s, kills_not_reached=not outcome.seen["done"])


def run(postgres: EmbeddedPostgres, tally: Tally, *, kills: int) -> None:
    begun_s = time.monotonic()
    with arena(postgres) as here:
        found = {story: list(plans(rehearsed(here, story, tally))) for story in STORIES}
    cases = chosen(found, kills, tally.seed)
    shared_out(postgres, cases, judged, tally)
    kinds = {(p.name, p.what) for some in found.values() for p in some}
    tally.note(
        kinds_of_kills=f"{len({(p.name, p.what) for _, p in cases})} of {len(kinds)}",
        points=sum(map(len, found.values())),
        kills_s=round(time.monotonic() - begun_s),
    )
