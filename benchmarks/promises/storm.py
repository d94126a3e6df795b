"""An alert storm: 1,000 distinct alerts and 10,000 repeats, as fast as senders with retries can, at a gateway with default limits, while it
pages and an incident runs. Every alert must be in the store, and every page must go out."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from multiprocessing import get_context
from typing import Any

from sqlalchemy import text

from benchmarks.promises.arena import Arena, arena
from benchmarks.promises.far import Far, Plan
from benchmarks.promises.near import POLICY, FarClock, Life, address_of, world_of
from benchmarks.promises.stories import STORIES, alert
from benchmarks.promises.tally import Tally
from mlrunbook.base import clocks, db, tokens
from mlrunbook.domain.elapsed import Elapsed
from mlrunbook.local.addresses import Ports
from mlrunbook.local.postgres import EmbeddedPostgres
from mlrunbook.response.world import World
from tests.fakes import MODEL, Clock, FileWorld

DISTINCT, REPEATS, MODELS, SENDERS = 1_000, 10_000, 50, 4
GOAL_P99_MS = 100
WAIT_S = 180.0  # for the incident's end and the last page, after the storm
TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Sent:
    """What one sender saw: seconds to each 202, tries that were turned away, and alerts it gave up."""

    took_s: list[float]
    turned_away: int
    unanswered: int


def run(postgres: EmbeddedPostgres, tally: Tally, *, distinct: int = DISTINCT, repeats: int = REPEATS) -> None:
    with arena(postgres) as here:
        now = datetime.now(UTC)
        path = here.base.folder / "world.json"
        FileWorld(path, Clock(now))
        here.far.reset(path, now, Plan(), bad_rollout=False, real_time=True)
        here.far.ask("registered", models=[MODEL, *(f"model_{n}" for n in range(MODELS))])
        with db.transaction(here.engine) as conn:
            keys = [tokens.create(conn, name=f"alertmanager {n}", scopes=[tokens.Scope.ALERTS]) for n in range(SENDERS)]
        with gateway(here) as port:
            _judge(here, port, keys, tally, distinct, repeats)


def _judge(here: Arena, port: int, keys: Sequence[str], tally: Tally, distinct: int, repeats: int) -> None:
    context = get_context("fork")
    incident = context.Process(target=_carry, args=(here, port, keys[0]))
    incident.start()
    begun_s = time.monotonic()
    sent = _storm(port, keys, distinct, repeats, tally.seed)
    took_s = time.monotonic() - begun_s
    again = f"storm --seed {tally.seed}"
    if not until(lambda: not incident.is_alive(), WAIT_S) or incident.exitcode:
        tally.wrong("stuck", f"the incident that ran during the storm did not end ({incident.exitcode})", again=again)
    incident.kill()
    with db.transaction(here.engine) as conn:
        rows = conn.execute(text("SELECT fingerprint, count AS seen FROM alerts WHERE source = 'alertmanager'")).all()
    stored = {row.fingerprint: row.seen for row in rows}
    missing = [n for n in range(distinct) if f"storm-{n}" not in stored]
    if missing:
        tally.wrong("lost", f"{len(missing)} of {distinct} alerts answered with 202 are not in the store", again=again)
    counted = sum(n for key, n in stored.items() if key.startswith("storm-"))
    if counted < sum(len(s.took_s) for s in sent):
        tally.wrong("lost", f"{sum(len(s.took_s) for s in sent)} messages were accepted and {counted} counted", again=again)
    if given_up := sum(s.unanswered for s in sent):
        tally.wrong("lost", f"{given_up} alerts were never accepted", again=again)
    for row in _unsent(here):
        tally.wrong("missed_pages", f"page {row} has not gone out {WAIT_S:.0f} s after the storm", again=again)
    times_ms = sorted(1000 * s for one in sent for s in one.took_s)
    tally.note(
        storm_alerts=len(times_ms),
        storm_s=round(took_s),
        storm_per_s=round(len(times_ms) / took_s),
        accept_p50_ms=round(times_ms[len(times_ms) // 2], 1),
        accept_p99_ms=round(times_ms[int(len(times_ms) * 0.99)], 1),
        accept_goal_p99_ms=GOAL_P99_MS,
        turned_away_503=sum(s.turned_away for s in sent),
    )


def _unsent(here: Arena) -> list[str]:
    due = text(
        "SELECT dedup_key FROM outbox WHERE kind = 'page' AND delivered_at IS NULL AND cancelled_at IS NULL"
        " AND not_before < now() - interval '5 s'"
    )

    def left() -> list[str]:
        with db.transaction(here.engine) as conn:
            return list(conn.execute(due).scalars())

    until(lambda: not left(), WAIT_S)
    return left()


def _storm(port: int, keys: Sequence[str], distinct: int, repeats: int, seed: int) -> list[Sent]:
    """The senders, each a process with one connection; an alert's repeats come after it, from the same sender."""
    context, dice = get_context("fork"), random.Random(seed)  # noqa: S311 - an order that can be repeated
    under_way = []
    for n, key in enumerate(keys):
        mine = list(range(n, distinct, len(keys)))
        order = mine + dice.choices(mine, k=repeats // len(keys))
        ours, theirs = context.Pipe()
        process = context.Process(target=lambda out, k, o: out.send(_send(port, k, o)), args=(theirs, key, order))
        process.start()
        under_way.append((process, ours))
    found = [ours.recv() for _, ours in under_way]
    for process, _ in under_way:
        process.join()
    return found


def _send(port: int, key: str, order: Sequence[int]) -> Sent:
    took_s: list[float] = []
    turned_away = unanswered = 0
    http = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    started_at = datetime.now(UTC).isoformat()
    for n in order:
        body = alert(f"model_{n % MODELS}", f"storm-{n}", started_at=started_at)
        for _ in range(60):
            begun_s = time.perf_counter()
            try:
                http.request("POST", "/webhooks/alertmanager", body, {"Authorization": f"Bearer {key}", "Content-Type": "application/json"})
                answer = http.getresponse()
                answer.read()
            except (OSError, HTTPException):
                http.close()
                continue
            if answer.status == 202:
                took_s.append(time.perf_counter() - begun_s)
                break
            turned_away += 1
            time.sleep(float(answer.headers.get("Retry-After") or 1))
        else:
            unanswered += 1
    return Sent(took_s, turned_away, unanswered)


def _carry(here: Arena, port: int, key: str) -> None:
    """Another incident, from its alert to its end, by the real clock; the gateway's dispatcher starts and resumes its run."""
    here.far.connect()
    http = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    clock = RealClock(here.far)
    engine = db.own_engine(here.base.database_url)
    world = world_of(here.base, here.far, engine, clock)
    people = World(**{k: v for k, v in world.__dict__.items() if k not in ("far", "ask_first")})
    world = replace(people, settle_s=5.0)
    life = Life(here.base, here.far, STORIES[0], world, clock, people)
    body = alert(MODEL, "the incident", started_at=clock().isoformat())
    http.request("POST", "/webhooks/alertmanager", body, {"Authorization": f"Bearer {key}", "Content-Type": "application/json"})
    incident_id = _incident_of(http)
    over = until(lambda: life.step(incident_id), WAIT_S, every_s=0.5)
    os._exit(0 if over else 1)


def _incident_of(http: HTTPConnection) -> str:
    import json

    return str(json.loads(http.getresponse().read())["incidents"][0])


class RealClock(FarClock):
    """The machine's. To advance it is to wait, but never for long."""

    def __init__(self, far: Far) -> None:
        super().__init__(datetime.now(UTC), far)

    def __call__(self) -> datetime:
        return datetime.now(UTC)

    def elapsed(self) -> Elapsed:
        return clocks.elapsed()

    def advance(self, **span: float) -> None:
        time.sleep(min(1.0, span.get("seconds", 1.0)))
        self._far.ask("now", at=self().isoformat())


@contextmanager
def gateway(here: Arena, **env: str) -> Iterator[int]:
    """`python -m mlrunbook.gateway` with its dispatcher and the default limits; its port."""
    far, port = here.far, Ports.free().gateway
    given = {k: v for k, v in os.environ.items() if not k.startswith(("MLRUNBOOK", "PREFECT"))}
    given |= {
        "MLRUNBOOK_DATABASE_URL": here.base.database_url,
        "MLRUNBOOK_DATA_DIR": str(here.base.folder / "gateway"),
        "MLRUNBOOK_PLATFORM_URL": f"{far.url}/platform",
        "PREFECT_API_URL": f"{far.url}/prefect",
        "MLRUNBOOK_RUNTIME": "kubernetes",
        "KUBECONFIG": str(here.base.kubeconfig),
    }
    address = address_of(far)
    given |= {f"MLRUNBOOK_CHANNEL_{c.upper().replace('-', '_')}": str(address(c)) for c in POLICY.channels}
    log = here.base.folder / "gateway.log"
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlrunbook.gateway", "--port", str(port)], env=given | env, stdout=out, stderr=out
        )
    try:
        if not until(lambda: _healthy(port) or process.poll() is not None, 60.0) or process.poll() is not None:
            raise RuntimeError(f"the gateway does not start:\n{log.read_text()[-2000:]}")
        yield port
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _healthy(port: int) -> bool:
    http = HTTPConnection("127.0.0.1", port, timeout=2.0)
    try:
        http.request("GET", "/health")
        return http.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        http.close()


def until(condition: Callable[[], Any], timeout_s: float, *, every_s: float = 0.2) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(every_s)
    return True
