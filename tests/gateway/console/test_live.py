"""What happens to an incident shows on every page that is open on it, and nothing of it is lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from mlrunbook.base import tokens
from mlrunbook.base.tokens import Scope
from mlrunbook.gateway.app import create_app
from mlrunbook.gateway.console import live
from mlrunbook.response.world import World
from mlrunbook.store import incidents, timeline
from tests.gateway.conftest import Clock, Keys
from tests.served import gateway_process, served
from tests.waiting import gone, until

QUIET_S = 0.3


@dataclass
class Stream:
    """One open page: what came, as (event, id, data)."""

    client: httpx.Client
    path: str
    headers: dict[str, str] = field(default_factory=dict)
    came: list[tuple[str, str, str]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)
    _close: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Stream:
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        until(lambda: self.opened.is_set() or self.ended.is_set())
        return self

    def __exit__(self, *_: object) -> None:
        self._close.set()

    def _read(self) -> None:
        event, number, data = "", "", []
        try:
            with self.client.stream("GET", self.path, headers={"HX-Request": "true"} | self.headers, timeout=60) as answer:
                for line in answer.iter_lines():
                    self.opened.set()
                    if self._close.is_set():
                        return
                    name, _, value = line.partition(": ")
                    if name == "event":
                        event = value
                    elif name == "id":
                        number = value
                    elif name == "data":
                        data.append(value)
                    elif not line and (data or event):
                        self.came.append((event, number, "\n".join(data)))
                        event, number, data = "", "", []
        except httpx.HTTPError:
            pass
        finally:
            self.ended.set()

    @property
    def entries(self) -> list[int]:
        return [int(number) for event, number, _ in self.came if not event]

    @property
    def events(self) -> list[str]:
        return [event for event, _, _ in self.came if event]


@pytest.fixture
def url(world: World) -> Iterator[str]:
    app = create_app(world)
    app.state.live._every_s, app.state.live._quiet_s = 0.05, QUIET_S  # the rest is as it ships
    with served(app) as address:
        yield address
        app.state.live.stop()


@pytest.fixture
def watched(client: httpx.Client, model: str) -> str:
    body = {"severity": "medium", "type": "performance_degradation", "description": "F1 fell"}
    return str(client.post(f"/api/v1/model-governance/{model}/incidents", json=body).json()["id"])


@pytest.fixture
def visit(url: str, keys: Keys) -> Iterator[Callable[..., httpx.Client]]:
    """A browser of one person, signed in."""
    opened = []

    def visiting(name: str = "Ann Lee", token: str = "") -> httpx.Client:
        one = httpx.Client(base_url=url)
        opened.append(one)
        given = token or keys.token(name, Scope.READ, Scope.OPERATE)
        assert one.post("/login/token", data={"token": given}).status_code == 303
        return one

    yield visiting
    for one in opened:
        one.close()


def say(world: World, incident_id: str, words: str) -> int:
    with world.transaction() as conn:
        timeline.append(conn, incident_id, "note", words, actor="the lead", at=world.now())
        return timeline.length(conn, incident_id)


def test_a_new_entry_shows_on_every_open_page(world: World, watched: str, visit: Callable[..., httpx.Client]) -> None:
    last = say(world, watched, "before")
    path = f"/incidents/{watched}/events?after={last}"
    with Stream(visit(), path) as one, Stream(visit("Bob Roe"), path) as other:
        said = say(world, watched, "the gateway <b>answers</b>\nagain")
        until(lambda: one.entries == [said] and other.entries == [said])
    html = next(data for event, _, data in one.came if not event)
    assert "&lt;b&gt;answers&lt;/b&gt; again" in html
    assert "\n" not in html
    assert "changed" in one.events


def test_who_comes_back_gets_what_was_missed_and_nothing_twice(world: World, watched: str, visit: Callable[..., httpx.Client]) -> None:
    browser = visit()
    last = say(world, watched, "one")
    with Stream(browser, f"/incidents/{watched}/events?after={last}") as page:
        say(world, watched, "two")
        until(lambda: bool(page.entries))
    missed = [say(world, watched, f"while it was away {n}") for n in range(live.AT_ONCE + 20)]
    back = {"Last-Event-ID": str(page.entries[-1])}
    with Stream(browser, f"/incidents/{watched}/events?after={last}", headers=back) as page:
        until(lambda: len(page.entries) >= len(missed))
        assert page.entries == missed
        newest = say(world, watched, "three")
        until(lambda: page.entries == [*missed, newest])


def test_a_storm_of_entries_reaches_a_page_in_order(world: World, watched: str, visit: Callable[..., httpx.Client]) -> None:
    last = say(world, watched, "before")
    with Stream(visit(), f"/incidents/{watched}/events?after={last}") as page:
        with world.transaction() as conn:
            for n in range(2 * live.AT_ONCE + 5):
                timeline.append(conn, watched, "note", f"{n}", actor="the lead", at=world.now())
        until(lambda: len(page.entries) == 2 * live.AT_ONCE + 5)
        assert page.entries == list(range(last + 1, last + 2 * live.AT_ONCE + 6))


def test_a_page_hears_of_changes_that_are_no_entry(world: World, watched: str, visit: Callable[..., httpx.Client]) -> None:
    with world.transaction() as conn:
        last = timeline.length(conn, watched)
        events = live.chain_heads.lengths(conn, [watched])[watched].events
    with Stream(visit(), f"/incidents/{watched}/events?after={last}&events={events}") as page:
        assert page.events == []
        with world.transaction() as conn:
            incidents.set_review_due(conn, watched, world.now())
        until(lambda: page.events == ["changed"])
        assert page.entries == []


def test_an_ended_session_ends_its_streams(world: World, keys: Keys, watched: str, visit: Callable[..., httpx.Client]) -> None:
    token = keys.token("Cas Vu", Scope.READ)
    browser = visit(token=token)
    with Stream(browser, f"/incidents/{watched}/events") as page:
        with world.transaction() as conn:
            tokens.revoke(conn, token)
        until(page.ended.is_set)
    assert page.events[-1] == "signed-out"
    with Stream(browser, f"/incidents/{watched}/events") as again:
        until(again.ended.is_set)
    assert again.events == ["signed-out"]
    assert again.entries == []


def test_one_person_has_a_limited_number_of_streams_and_gets_places_back(watched: str, visit: Callable[..., httpx.Client]) -> None:
    browser = visit("Dee Fox")
    path = f"/incidents/{watched}/events"
    taken = [
        Stream(browser.__class__(base_url=browser.base_url, cookies=browser.cookies), path).__enter__() for _ in range(live.MOST_OF_ONE)
    ]
    assert browser.get(path).status_code == 503
    assert browser.get(f"/incidents/{watched}").status_code == 200, "the page itself is there"
    for one in taken:
        one.__exit__()
    until(lambda: _is_open(browser, path))


def _is_open(browser: httpx.Client, path: str) -> bool:
    with browser.stream("GET", path) as answer:
        return answer.status_code == 200


def test_nothing_is_looked_at_while_nobody_watches(world: World, watched: str, clock: Clock) -> None:
    app = create_app(world)
    assert app.state.live.streams == 0
    assert app.state.live._task is None


def test_a_gateway_that_is_stopped_ends_its_streams_first(
    database_url: str,
    world: World,
    keys: Keys,
    watched: str,
    tmp_path: Path,
) -> None:
    token = keys.token("Eli Moe", Scope.READ)
    with gateway_process(database_url, tmp_path / "gateway") as (pid, address), httpx.Client(base_url=address) as browser:
        assert browser.post("/login/token", data={"token": token}).status_code == 303
        with Stream(browser, f"/incidents/{watched}/events") as page:
            os.kill(pid, signal.SIGTERM)
            until(page.ended.is_set)
            until(lambda: gone(pid))
    assert "signed-out" not in page.events, "the browser comes back by itself"
    assert "Cancel" not in (tmp_path / "gateway" / "gateway.log").read_text(), "no stream had to be cut off"
