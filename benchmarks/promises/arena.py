"""One incident at a time, from an empty store to its end, with one thing going wrong; and the look at what is left afterwards."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, NullPool, create_engine, text

from benchmarks.promises.cluster import STAMP
from benchmarks.promises.far import AWAY, Far, Plan, far_side
from benchmarks.promises.near import Base, live
from benchmarks.promises.stories import Story
from benchmarks.promises.tally import Tally
from mlrunbook.base import db
from mlrunbook.domain.action_state import ActionState
from mlrunbook.local.postgres import EmbeddedPostgres
from mlrunbook.store import incidents, journal, leases, outbox, timeline
from tests.fake_kubernetes import kubeconfig
from tests.fakes import T0, Clock, FileWorld
from tests.kubernetes_kit import Kit

KEPT = ("alembic_version", "tokens")
LONGEST_S = 90.0  # of one process, by the real clock
AFTER_A_KILL = timedelta(minutes=5)
WORKERS, FEW = 2, 4
Case = tuple[Story, Plan]
_numbers = count(1)
LIVES = 3  # processes after the one that was killed
WORD_OF = {  # of an action's kind, the word by which the far side counts it
    "configure": "config",
    "roll_back": "rollback",
    "flag_work_orders": "flag",
    "undo_rollout": "undo",
    "route_traffic": "route",
    "resume_materialization": "resume",
}


@dataclass
class Arena:
    base: Base
    far: Far
    engine: Engine

    def run(self, story: Story, plan: Plan, *, started: datetime = T0, here: bool = False) -> Outcome:
        """The story with what the plan does to it, by as many processes as it takes. `here`: in this one, from which children then inherit
        compiled statements and imports."""
        began_s = time.monotonic()
        folder = Path(tempfile.mkdtemp(dir=self.base.folder))
        base = replace(self.base, folder=folder, store_away=plan.part == "store", by_people=plan.what == AWAY)
        empty_store(self.engine)
        story.prepare(FileWorld(folder / "world.json", Clock(started)))
        forgetful = base.plant == "sends again"
        self.far.reset(folder / "world.json", started, plan, bad_rollout=story.bad_rollout, forgetful=forgetful)
        now, killed, ended = started + timedelta(seconds=1), False, False
        for _ in range(1 + LIVES):
            code = (0 if live(base, self.far, story, now, os.getpid()) else 2) if here else self._child(base, story, now)
            ended = code == 0
            if code == -signal.SIGKILL and not killed:
                killed = True
            elif ended:
                break
            if base.plant == "nobody takes over":
                break
            seen = self.far.seen()
            if seen["broken"]:
                raise RuntimeError(f"the far side of {story.name} failed, {plan.text}:\n{seen['broken']}")
            now = datetime.fromisoformat(seen["now"]) + AFTER_A_KILL
        outcome = Outcome(story, plan, self.far.seen(), killed, ended, time.monotonic() - began_s, self.engine, self._error(folder))
        shutil.rmtree(folder)
        return outcome

    def _child(self, base: Base, story: Story, now: datetime) -> int:
        """Its exit code; minus the signal that ended it."""
        pid = os.fork()
        if pid == 0:
            code = 3
            try:
                gc.disable()  # it would touch, and so copy, every page shared with the parent
                code = 0 if live(base, self.far, story, now, os.getpid()) else 2
            finally:
                os._exit(code)
        until = time.monotonic() + LONGEST_S
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > until:
                os.kill(pid, signal.SIGTERM)
                os.waitpid(pid, 0)
                return 4
            time.sleep(0.005)

    @staticmethod
    def _error(folder: Path) -> str:
        file = folder / "error.txt"
        return file.read_text().strip().splitlines()[-1] if file.exists() else ""


@dataclass
class Outcome:
    story: Story
    plan: Plan
    seen: dict[str, Any]
    killed: bool
    ended: bool
    took_s: float
    engine: Engine
    error: str

    @property
    def effects(self) -> Counter[str]:
        """By the first word: "config:threshold=0.5" is a config."""
        found: Counter[str] = Counter()
        for kind, n in self.seen["applied"].items():
            found[kind.partition(":")[0]] += n
        return found

    def judge(self, tally: Tally, *, again: str, strict: bool = True) -> None:
        """`strict`: exactly the story's effects. Else (a part was away: people may have fixed it) what the journal says, and no more."""
        about = f"{self.story.name} {self.plan.text}"

        def wrong(kind: str, what: str) -> None:
            tally.wrong(kind, f"{about}: {what}", again=again)

        with db.transaction(self.engine) as conn:
            found = conn.execute(text("SELECT id FROM incidents ORDER BY id")).scalars().all()
            if len(found) != 1:
                wrong("double" if found else "lost", f"{len(found)} incidents of one alert: {self.error}")
                return
            incident_id = found[0]
            if not self.ended:
                state = f"{incidents.get(conn, incident_id).status}, lease {leases.get(conn, incident_id).state}"
                wrong("stuck", f"{state}; {self.error or last_words(conn, incident_id)}")
            for kind, what in self._effects_against(conn, incident_id, strict=strict and self.ended):
                wrong(kind, what)
            if (at := timeline.broken_at(conn, incident_id)) is not None:
                wrong("lost", f"the timeline is broken at {at}")
            arrived = {r["key"] for r in self.seen["received"]}
            for row in outbox.of_incident(conn, incident_id, "page", "message"):
                if row["delivered_at"] and row["dedup_key"] not in arrived:
                    wrong("missed_pages", f"{row['kind']} {row['dedup_key']} is booked as delivered and never came")

    def _effects_against(self, conn: Any, incident_id: str, *, strict: bool) -> Iterator[tuple[str, str]]:
        done, unknown = (self._journaled(conn, incident_id, state) for state in (ActionState.DONE, ActionState.UNKNOWN))
        trained = Counter(train=min(1, self.effects["train"]))  # no change of production: the journal does not have it
        least, most = (Counter(self.story.effects),) * 2 if strict else (done + trained, done + unknown + trained)
        for word in sorted({*least, *most, *self.effects}):
            made = self.effects[word]
            if made > most[word]:
                yield "double", f"{word} was made {made} times, not {most[word]}"
            elif made < least[word]:
                yield "lost", f"{word} was made {made} times, not {least[word]}"

    def _journaled(self, conn: Any, incident_id: str, state: ActionState) -> Counter[str]:
        rows = [r for r in journal.of_incident(conn, incident_id) if r.state == state]
        return Counter(WORD_OF.get(r.kind, r.kind) for r in rows)


def empty_store(engine: Engine) -> None:
    """Every story its own incidents, by the same numbers; the tokens stay."""
    tables = ", ".join(t.fullname for t in db.metadata.sorted_tables if t.schema is None and t.name not in KEPT)
    with engine.begin() as conn:
        conn.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))


def last_words(conn: Any, incident_id: str) -> str:
    entries = list(timeline.read(conn, incident_id))
    return entries[-1].text[:200] if entries else "nothing on the timeline"


@contextmanager
def store() -> Iterator[EmbeddedPostgres]:
    folder = Path(tempfile.mkdtemp(prefix="mlrb-promises-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        with EmbeddedPostgres(folder / "store", durable=False) as postgres:
            yield postgres
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def arena(postgres: EmbeddedPostgres, *, plant: str = "") -> Iterator[Arena]:
    """A database of its own, the far side with a seeded cluster, and the product's modules loaded before the first fork."""
    with ExitStack() as held:
        folder = Path(tempfile.mkdtemp(prefix="mlrb-promises-", dir="/tmp"))
        held.callback(shutil.rmtree, folder, ignore_errors=True)
        far = held.enter_context(far_side())
        name = f"promises_{os.getpid()}_{next(_numbers)}"
        postgres.create_database(name)
        url = postgres.url(name)
        engine = create_engine(db.normalise_url(url), poolclass=NullPool, connect_args={"options": "-c timezone=UTC"})
        db.upgrade(engine)
        far.ask("seeding", now=f"{T0 - timedelta(days=30):{STAMP}}")
        kit = Kit(kubeconfig(folder / "admin", f"{far.url}/cluster", "admin"), namespace="production")
        kit.seed(replicas=1)
        kit.start_pods()
        far.ask("seeded")
        file = kubeconfig(folder / "worker", f"{far.url}/cluster", "worker")
        file.write_text(file.read_text().replace('"namespace": "default"', '"namespace": "production"'))
        _load()
        yield Arena(Base(url, file, folder, plant), far, engine)


def shared_out(
    postgres: EmbeddedPostgres, cases: Sequence[Case], judged: Callable[[Arena, Sequence[Case], Tally], None], tally: Tally
) -> None:
    """The cases by processes with an arena each, one a core; what they find is added to the tally."""
    context, shares = get_context("fork"), WORKERS if len(cases) > FEW else 1
    under_way = []

    def work(share: Sequence[Case], out: Any) -> None:
        mine = Tally(tally.seed)
        try:
            with arena(postgres) as here:
                judged(here, share, mine)
        finally:
            out.send(mine)

    for n in range(shares):
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(cases[n::shares], theirs))
        process.start()
        under_way.append((process, ours))
    for process, ours in under_way:
        tally.take_over(ours.recv())
        process.join()
        if process.exitcode:
            tally.wrong("stuck", f"a process of the harness died with {process.exitcode}", again=f"--seed {tally.seed}")


def _load() -> None:
    """What a child would import by itself: a fork shares it."""
    import apprise
    import apprise.plugins.custom_json
    import kubernetes.client

    assert apprise
    assert kubernetes
