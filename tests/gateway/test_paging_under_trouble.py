"""Nothing from outside stops paging: channels that hang, rows nobody can read, requests that use up the connections."""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, create_engine, text

from mlrunbook.base import db
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.gateway import lanes, payloads
from mlrunbook.gateway.app import create_app
from mlrunbook.gateway.dispatcher import ORDINARY, UNKNOWN_AFTER, URGENT, Dispatcher
from mlrunbook.gateway.late_pages import PAGE_LATE
from mlrunbook.ports import Message
from mlrunbook.response.world import World
from mlrunbook.store import outbox
from tests.fakes import Clock, FileWorld, LedgerNotifier, LedgerOrchestrator, empty_store, world_of
from tests.response.people import deliver, report, told
from tests.waiting import until


class Hanging(LedgerNotifier):
    """The channels named in `hang` take a message and never say what became of it, until they are let go."""

    def __init__(self, *hang: str) -> None:
        super().__init__()
        self.hang, self.let_go, self.held = set(hang), threading.Event(), 0

    def send(self, message: Message) -> None:
        if message.channel in self.hang:
            self.held += 1
            self.let_go.wait(120)
        super().send(message)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def orchestrator() -> LedgerOrchestrator:
    return LedgerOrchestrator()


@pytest.fixture
def world(engine: Engine, tmp_path: Path, clock: Clock, orchestrator: LedgerOrchestrator) -> World:
    empty_store(engine)
    return world_of(engine, FileWorld(tmp_path / "world.json", clock), clock, orchestrator=orchestrator)


@contextmanager
def running(dispatcher: Dispatcher, *let_go: threading.Event) -> Iterator[None]:
    thread = threading.Thread(target=dispatcher.run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        for event in let_go:
            event.set()
        dispatcher.stop()
        thread.join(120)
        until(lambda: not any(lanes._attempts for lanes in dispatcher._lanes.values()))  # the next test has the store to itself


def put(world: World, kind: str, key: str, payload: Any, *, incident_id: str | None = None, at_s: float = 0) -> None:
    with world.transaction() as conn:
        outbox.put(conn, kind, key, {}, now=world.now(), incident_id=incident_id, at=world.now() + timedelta(seconds=at_s))
        conn.execute(text("UPDATE outbox SET payload = CAST(:p AS jsonb) WHERE dedup_key = :k"), {"p": payload, "k": key})


def page_payload(channel: str) -> str:
    return f'{{"role": "ml_team_lead", "to": "ML Team Lead", "reason": "a test", "channel": "{channel}", "next_step": null}}'


def kinds(world: World, incident_id: str) -> list[str]:
    with world.transaction() as conn:
        return [r["kind"] for r in outbox.of_incident(conn, incident_id)]


class TestAChannelThatHangs:
    def test_it_holds_up_no_other_channel_no_run_and_no_later_incident(self, world: World, orchestrator: LedgerOrchestrator) -> None:
        notifier = Hanging("dead")
        first = report(world)
        for n in range(40):
            put(world, "page", f"page:{first}:dead-{n}", page_payload("dead"), incident_id=first, at_s=-60)
        dispatcher = Dispatcher(replace(world, notifier=notifier), every_s=0.02)
        with running(dispatcher, notifier.let_go):
            until(lambda: notifier.held > 0)
            put(world, "page", f"page:{first}:alive", page_payload("alive"), incident_id=first)
            until(lambda: any(m.channel == "alive" for m in notifier.pages()))
            later = report(world, Severity.CRITICAL, IncidentType.INFRASTRUCTURE, by_alert=False)
            until(lambda: any(m.incident_id == later for m in notifier.pages()))
            until(lambda: len(orchestrator.started) == 2)
            assert not notifier.let_go.is_set()

    def test_its_deliveries_are_given_up_threads_do_not_heap_up_and_other_channels_take_over(self, world: World, clock: Clock) -> None:
        passed = [0.0]
        notifier = Hanging("page")
        first = report(world, Severity.CRITICAL, by_alert=False)
        dispatcher = Dispatcher(replace(world, notifier=notifier), every_s=0.02, monotonic=lambda: passed[0])

        def paged_of(incident_id: str) -> bool:
            """Time passes until somebody is."""
            clock.advance(seconds=2)
            passed[0] += 2
            return any(m.incident_id == incident_id and m.channel != "page" for m in notifier.pages())

        with running(dispatcher, notifier.let_go):
            until(lambda: notifier.held > 0)
            until(lambda: paged_of(first))
            until(lambda: dispatcher.is_stuck or paged_of("nobody"))
            later = report(world, Severity.CRITICAL, IncidentType.INFRASTRUCTURE, by_alert=False)
            until(lambda: paged_of(later))
            assert notifier.held <= lanes.MAX_HANGING + 4
            assert dispatcher.is_stuck, "a restart is what frees the threads"

    def test_one_that_answers_again_gets_its_pages(self, world: World, clock: Clock) -> None:
        passed = [0.0]
        notifier = Hanging("page")
        incident_id = report(world, Severity.CRITICAL, by_alert=False)
        dispatcher = Dispatcher(replace(world, notifier=notifier), every_s=0.02, monotonic=lambda: passed[0])

        def pages(n: int) -> bool:
            clock.advance(seconds=2)
            return len({m.key for m in notifier.pages() if m.channel == "page" and m.incident_id == incident_id}) >= n

        with running(dispatcher, notifier.let_go):
            until(lambda: notifier.held >= 3)
            passed[0] += outbox.CLAIM_OF_PAGES_S
            until(lambda: dispatcher._lanes[URGENT].under_way(outbox.Lane("page", "page")) <= 1)
            notifier.hang.clear()
            notifier.let_go.set()
            until(lambda: pages(3))

    def test_prefect_that_hangs_holds_up_no_page(self, world: World) -> None:
        let_go, asked = threading.Event(), threading.Event()

        class Slow(LedgerOrchestrator):
            def start(self, *args: Any, **named: Any) -> str:
                asked.set()
                let_go.wait(120)
                return super().start(*args, **named)

        notifier = LedgerNotifier()
        with running(Dispatcher(replace(world, orchestrator=Slow(), notifier=notifier), every_s=0.02), let_go):
            report(world)
            assert asked.wait(120)
            critical = report(world, Severity.CRITICAL, IncidentType.INFRASTRUCTURE, by_alert=False)
            until(lambda: any(m.incident_id == critical for m in notifier.pages()))

    def test_prefect_that_hangs_while_runs_are_looked_after_holds_up_no_page(self, world: World) -> None:
        let_go, asked = threading.Event(), threading.Event()

        class Dispatching(Dispatcher):
            def _revive(self) -> int:
                asked.set()
                let_go.wait(120)
                return 0

        notifier = LedgerNotifier()
        with running(Dispatching(replace(world, notifier=notifier), every_s=0.02), let_go):
            assert asked.wait(120)
            critical = report(world, Severity.CRITICAL, by_alert=False)
            until(lambda: any(m.incident_id == critical for m in notifier.pages()))


USELESS = ["{}", "null", "[]", '"x"', "7", "[[1]]", '{"digest":1,"number":"x","generation":"y","channel":null,"deadline":"soon","item":{}}']


class TestARowNobodyCanRead:
    def test_every_kind_that_is_delivered_says_what_it_must_hold(self, world: World) -> None:
        assert set(payloads.FIELDS) == set(URGENT) | set(ORDINARY) == set(Dispatcher(world)._deliver)

    @pytest.mark.parametrize("kind", URGENT + ORDINARY)
    def test_it_is_set_aside_somebody_is_paged_of_it_and_the_others_go_out(self, world: World, kind: str) -> None:
        incident_id = report(world, Severity.CRITICAL, by_alert=False)
        for n, payload in enumerate(USELESS):
            of = None if kind == "silence_ends" else incident_id
            put(world, kind, f"{kind}:bad-{n}", payload, incident_id=of, at_s=-3600)
        deliver(world)
        pages = world.notifier.pages()  # type: ignore[attr-defined]
        assert {m.body.split(":")[0] for m in pages} >= {"On-Call ML Engineer", "ML Team Lead", "Engineering Manager"}
        with world.transaction() as conn:
            rows = conn.execute(text("SELECT kind, payload, attempts FROM outbox WHERE kind = 'set_aside'")).all()
        assert len(rows) == len(USELESS)
        assert all(r.payload["kind"] == kind and r.attempts == 1 for r in rows)
        if of is not None:
            assert sum("was set aside" in m.body for m in pages) == 1, "once, not for each"
            assert sum("set aside" in line for line in told(world, incident_id, "delivery")) == len(USELESS)

    def test_the_page_it_should_have_been_can_be_put_again(self, world: World) -> None:
        incident_id = report(world, Severity.LOW)
        put(world, "page", "page:x", "{}", incident_id=incident_id)
        deliver(world)
        put(world, "page", "page:x", page_payload("page"), incident_id=incident_id)
        deliver(world)
        assert any(m.key == "page:x" for m in world.notifier.pages())  # type: ignore[attr-defined]

    def test_a_kind_of_a_newer_version_stays_for_it_and_is_said_once(self, world: World, clock: Clock) -> None:
        incident_id = report(world, Severity.CRITICAL, by_alert=False)
        put(world, "unheard_of", "x", "{}", incident_id=incident_id)
        deliver(world)
        assert not told(world, incident_id, "delivery"), "a newer gateway may be about to deliver it"
        clock.advance(seconds=UNKNOWN_AFTER.total_seconds() + 1)
        for _ in range(3):
            deliver(world)
            clock.advance(minutes=10)
        assert sum("unheard_of" in line for line in told(world, incident_id, "delivery")) == 1
        assert sum("unheard_of" in m.body for m in world.notifier.pages()) == 1  # type: ignore[attr-defined]
        assert "unheard_of" in kinds(world, incident_id)

    def test_a_page_about_an_incident_whose_records_cannot_be_read_goes_out(self, world: World) -> None:
        incident_id = report(world, Severity.CRITICAL, by_alert=False)
        with world.transaction() as conn:
            record = "INSERT INTO records (incident_id, step, data, recorded_at) VALUES (:i, 'triage', '[1]', now())"
            conn.execute(text(record), {"i": incident_id})
        deliver(world)
        assert len(world.notifier.pages()) >= 3  # type: ignore[attr-defined]


class TestHealth:
    def test_a_late_page_is_named_with_since_when_until_it_goes_out(self, world: World, clock: Clock) -> None:
        notifier = LedgerNotifier(fail={"page", "incidents", "email"})
        world = replace(world, notifier=notifier)
        dispatcher = Dispatcher(world)
        client = TestClient(create_app(world, dispatcher=dispatcher), raise_server_exceptions=False)
        with client:
            incident_id = report(world, Severity.CRITICAL, by_alert=False)
            since = clock()
            assert client.get("/health").status_code == 200
            clock.advance(seconds=PAGE_LATE.total_seconds() + 1)
            answer = client.get("/health")
            assert answer.status_code == 503
            assert incident_id in answer.json()["detail"]
            assert "channel page" in answer.json()["detail"]
            assert f"{since:%Y-%m-%d %H:%M:%S}" in answer.json()["detail"]
            assert client.get("/ready").status_code == 200, "alerts are still taken in"
            notifier.fail.clear()
            clock.advance(minutes=2)
            until(lambda: client.get("/health").status_code == 200)

    def test_requests_that_hold_every_connection_hold_neither_health_nor_a_page(
        self, world: World, database_url: str, engine: Engine
    ) -> None:
        few = create_engine(engine.url, pool_size=1, max_overflow=0, pool_timeout=60)
        notifier = LedgerNotifier()
        http, paging = replace(world, engine=few, notifier=notifier), replace(world, notifier=notifier)
        with TestClient(create_app(http, dispatcher=Dispatcher(paging, every_s=0.02))) as client, ExitStack() as held:
            held.enter_context(few.connect())
            incident_id = report(world, Severity.CRITICAL, by_alert=False)
            until(lambda: any(m.incident_id == incident_id for m in notifier.pages()))
            assert client.get("/health").status_code == 200
        few.dispose()

    def test_pages_go_out_when_no_descriptor_is_left(self, world: World, database_url: str) -> None:
        notifier, engine = LedgerNotifier(), db.own_engine(database_url, size=6)
        db.warm(engine)
        incident_id = report(world, Severity.CRITICAL, by_alert=False)
        dispatcher = Dispatcher(replace(world, engine=engine, notifier=notifier))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            dispatcher.turn()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        engine.dispose()
        assert len([m for m in notifier.pages() if m.incident_id == incident_id]) == 3
