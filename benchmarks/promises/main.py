"""The command: which parts, how many kills, by which seed; one JSON line at the end."""

from __future__ import annotations

import argparse
import logging
import sys
import time

from benchmarks.promises import arena as arenas
from benchmarks.promises import hostile, kills, outages, storm
from benchmarks.promises.far import Plan
from benchmarks.promises.stories import STORIES
from benchmarks.promises.tally import Tally

PARTS = ("kills", "outages", "storm", "hostile")
KILLS = 400


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks promises", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=f"which of {', '.join(PARTS)}; none: all")
    parser.add_argument("--kills", type=_count, default=KILLS, help="how many processes are killed (default %(default)s)")
    parser.add_argument("--outages", type=_count, default=None, help="how many outages (default: all)")
    parser.add_argument("--seed", type=int, default=1, help="chooses among what could be tried")
    parser.add_argument("--at", nargs=2, metavar=("STORY", "PLAN"), help="one kill or outage again, as a failure's line names it")
    parser.add_argument("--only", action="append", default=[], metavar="ATTACK", help="this attack alone, as a failure's line names it")
    given = parser.parse_args(arguments)
    if wrong := set(given.parts) - set(PARTS):
        parser.error(f"there is no part {min(wrong)!r}: choose from {', '.join(PARTS)}")
    if wrong := set(given.only) - hostile.NAMES:
        parser.error(f"there is no attack {min(wrong)!r}: choose from {', '.join(sorted(hostile.NAMES))}")
    logging.disable(logging.CRITICAL)  # what the product says of thousands of attacks and kills is not the result
    tally, begun_s = Tally(given.seed), time.monotonic()
    with arenas.store() as postgres:
        if given.at:
            names = ", ".join(s.name for s in STORIES)
            story = next((s for s in STORIES if s.name == given.at[0]), None) or parser.error(f"there is no story {given.at[0]!r}: {names}")
            judged = outages.judged if given.parts == ["outages"] else kills.judged
            with arenas.arena(postgres) as here:
                judged(here, [(story, Plan.parsed(given.at[1]))], tally)
        else:
            _run(postgres, given, tally)
    tally.note(seconds=round(time.monotonic() - begun_s))
    print(tally.as_json(), flush=True)
    return 0 if tally.held else 1


def _count(text: str) -> int:
    if (n := int(text)) < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return n


def _run(postgres: arenas.EmbeddedPostgres, given: argparse.Namespace, tally: Tally) -> None:
    parts = given.parts or PARTS
    if "kills" in parts:
        kills.run(postgres, tally, kills=given.kills)
    if "outages" in parts:
        outages.run(postgres, tally, most=given.outages)
    if "storm" in parts:
        storm.run(postgres, tally)
    if "hostile" in parts:
        hostile.run(postgres, tally, only=tuple(given.only))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
