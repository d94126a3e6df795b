"""The watch outside hears from the gateway while due pages go out, and is told or hears nothing when they do not."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, create_engine

from mlrunbook.domain.errors import Transient
from mlrunbook.domain.incident import Severity
from mlrunbook.gateway.app import create_app
from mlrunbook.gateway.dispatcher import STUCK_S, Dispatcher
from mlrunbook.gateway.heartbeat import Heartbeat
from mlrunbook.gateway.late_pages import PAGE_LATE
from mlrunbook.ports import Message
from mlrunbook.response.world import World
from mlrunbook.store import outbox
from tests.fakes import Clock, FileWorld, LedgerNotifier, empty_store, world_of
from tests.response.people import deliver, report
from tests.waiting import until

SECRET = "0d338dcc-a054-11ec-b909-0242ac120002"


class Watch:
    """A service as healthchecks.io is one: (path, body) of every ping, and an answer to give."""

    def __init__(self) -> None:
        self.pings: list[tuple[str, str]] = []
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                outer.pings.append((self.path, body))
                self.send_response(outer.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/{SECRET}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch()
    yield watch
    watch.stop()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def notifier() -> LedgerNotifier:
    return LedgerNotifier()


@pytest.fixture
def world(engine: Engine, tmp_path: Path, clock: Clock, notifier: LedgerNotifier) -> World:
    empty_store(engine)
    return world_of(engine, FileWorld(tmp_path / "world.json", clock), clock, notifier=notifier)


def put_page(world: World, key: str = "page:1", *, in_s: float = 0) -> None:
    with world.transaction() as conn:
        outbox.put(conn, "page", key, {}, now=world.now(), at=world.now() + timedelta(seconds=in_s))


def test_with_nothing_due_and_with_pages_that_go_out_the_watch_is_pinged(world: World, watch: Watch, clock: Clock) -> None:
    heart = Heartbeat(world, Dispatcher(world), watch.url)
    heart.beat()
    put_page(world, in_s=3600)  # an escalation that is not due yet
    heart.beat()
    report(world, Severity.CRITICAL)
    deliver(world)
    clock.advance(seconds=PAGE_LATE.total_seconds() + 1)
    deliver(world)
    heart.beat()
    assert watch.pings == [(f"/{SECRET}", "")] * 3
    assert heart.state == "ok"


def test_a_page_that_is_late_is_reported_and_its_delivery_ends_it(world: World, watch: Watch, clock: Clock) -> None:
    heart = Heartbeat(world, Dispatcher(world), watch.url)
    put_page(world)
    clock.advance(seconds=PAGE_LATE.total_seconds())
    heart.beat()
    clock.advance(seconds=1)
    heart.beat()
    assert (watch.pings[0], watch.pings[1][0], heart.state) == ((f"/{SECRET}", ""), f"/{SECRET}/fail", "failing")
    assert "121 s" in watch.pings[1][1]
    with world.transaction() as conn:
        [item] = outbox.claim(conn, now=clock())
        outbox.delivered(conn, item, now=clock())
    heart.beat()
    assert (watch.pings[2], heart.state) == ((f"/{SECRET}", ""), "ok")


def test_a_page_that_is_tried_again_and_again_is_late_though_no_try_is_overdue(world: World, watch: Watch, clock: Clock) -> None:
    """Each failure moves its next try into the future; a restart of the gateway forgets nothing either."""
    put_page(world)
    for _ in range(9):
        with world.transaction() as conn:
            [item] = outbox.claim(conn, now=clock())
            outbox.failed(conn, item, "the channel is dead", now=clock())
        clock.advance(seconds=min(2.0 ** (item.attempts - 1), 60.0))
    Heartbeat(world, Dispatcher(world), watch.url).beat()
    assert watch.pings[0][0].endswith("/fail")


def test_a_dispatcher_that_hangs_silences_the_heart_even_with_nothing_due(world: World, watch: Watch) -> None:
    passed = [0.0]
    dispatcher = Dispatcher(world, monotonic=lambda: passed[0])
    heart = Heartbeat(world, dispatcher, watch.url)
    passed[0] = STUCK_S + 1
    heart.beat()
    assert watch.pings[-1][0].endswith("/fail")
    dispatcher.turn()
    heart.beat()
    assert watch.pings[-1] == (f"/{SECRET}", "")


def test_a_channel_that_never_answers_holds_the_dispatcher_and_the_watch_is_told(world: World, watch: Watch) -> None:
    """The dispatcher's own thread hangs in a delivery; the heart has one of its own."""
    let_go, held, passed = threading.Event(), threading.Event(), [0.0]

    class Hangs(LedgerNotifier):
        def send(self, message: Message) -> None:
            held.set()
            let_go.wait(120)
            raise Transient("it never answered")

    hanging = replace(world, notifier=Hangs())
    report(world, Severity.CRITICAL, by_alert=False)
    dispatcher = Dispatcher(hanging, every_s=0.01, monotonic=lambda: passed[0])
    heart = Heartbeat(hanging, dispatcher, watch.url, every_s=0.05)
    app = create_app(hanging, dispatcher=dispatcher, heartbeat=heart)
    try:
        with TestClient(app, raise_server_exceptions=False) as client:
            assert held.wait(120)
            passed[0] = STUCK_S + 1
            until(lambda: any(path.endswith("/fail") for path, _ in watch.pings))
            assert client.get("/health").status_code == 503
            let_go.set()
    finally:
        let_go.set()


def test_a_store_that_is_away_is_reported_without_its_address(world: World, watch: Watch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"postgresql+psycopg://me:s3cret@127.0.0.1:{unused.getsockname()[1]}/none"
        away = replace(world, engine=create_engine(url, connect_args={"connect_timeout": 2}))
        Heartbeat(away, Dispatcher(away), watch.url).beat()
    ((path, said),) = watch.pings
    assert path.endswith("/fail")
    assert "store" in said
    assert "127.0.0.1" not in said


def test_the_first_ping_comes_after_a_while_so_that_a_gateway_that_keeps_dying_is_silent(world: World, watch: Watch) -> None:
    heart = Heartbeat(world, Dispatcher(world), watch.url, every_s=60)
    with TestClient(create_app(world, heartbeat=heart)) as client:
        assert client.get("/health").json()["heartbeat"] == "waiting"
    assert watch.pings == []


@pytest.mark.parametrize("how", ["refuses", "is gone", "is no URL"])
def test_a_watch_that_cannot_be_reached_is_said_in_the_log_without_its_url(
    world: World, watch: Watch, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = watch.url
    if how == "refuses":
        watch.status = 404
    elif how == "is gone":
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{unused.getsockname()[1]}/{SECRET}"
    else:
        url = f"hc-ping.example/{SECRET}"
    heart = Heartbeat(world, Dispatcher(world), url)
    with caplog.at_level(logging.WARNING):
        heart.beat()
    assert heart.state == "failing"
    assert "MLRUNBOOK_HEARTBEAT_URL" in caplog.text
    assert SECRET not in caplog.text


def test_a_url_with_a_query_keeps_it_when_it_fails(world: World, watch: Watch, clock: Clock) -> None:
    put_page(world)
    clock.advance(seconds=600)
    Heartbeat(world, Dispatcher(world), f"{watch.url}/?create=1").beat()
    assert watch.pings[0][0] == f"/{SECRET}/fail?create=1"
