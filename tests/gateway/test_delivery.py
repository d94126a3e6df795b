"""A dead channel: the page goes out by another one, once, and the paging service hears what became of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from mlrunbook.domain.communication.messages import Rendered
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.dispatcher import Dispatcher
from mlrunbook.ports import Message
from mlrunbook.response.communication.escalation import acknowledge
from mlrunbook.response.communication.notifications import receivers, send_message, stop, update_notice
from mlrunbook.response.world import World
from mlrunbook.store import incidents, outbox
from tests.fakes import Clock, FileWorld, LedgerNotifier, empty_store, world_of
from tests.response.people import deliver, report, told

ONCALL = "On-Call ML Engineer"


class Channels(LedgerNotifier):
    """`bare` channels have no address, `wrong` ones one that is none."""

    bare: frozenset[str] = frozenset()
    wrong: frozenset[str] = frozenset()

    def send(self, message: Message) -> None:
        if message.channel in self.wrong:
            raise Refused(f"channel {message.channel} has no valid address")
        super().send(message)

    def has_address(self, channel: str) -> bool:
        return channel not in self.bare

    def settle(self, message: Message, action: str) -> bool:
        return not super().settle(message, action)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def notifier() -> Channels:
    return Channels()


@pytest.fixture
def world(engine: Engine, tmp_path: Path, clock: Clock, notifier: Channels) -> World:
    empty_store(engine)
    return world_of(engine, FileWorld(tmp_path / "world.json", clock), clock, notifier=notifier, policy=Policy())


def paged(notifier: Channels, role: str = ONCALL) -> list[str]:
    """The channels that took a page of that role, in order."""
    return [m.channel for m in notifier.pages() if m.body.startswith(role)]


def minutes(world: World, clock: Clock, count: int) -> None:
    for _ in range(count):
        clock.advance(minutes=1)
        deliver(world)


def test_a_page_that_its_channel_does_not_take_goes_out_once_by_another_and_still_by_its_own(
    world: World, clock: Clock, notifier: Channels
) -> None:
    notifier.fail.add("page")
    incident_id = report(world, Severity.MEDIUM, by_alert=False)
    minutes(world, clock, 8)
    assert paged(notifier) == ["incidents"]
    assert "the channel page does not take pages" in notifier.pages()[0].body
    notifier.fail.clear()
    minutes(world, clock, 3)
    assert paged(notifier) == ["incidents", "page"]
    assert any(t.startswith("Paged On-Call ML Engineer") and "(attempt " in t for t in told(world, incident_id, "page"))


def test_a_fallback_that_is_dead_too_has_its_own_and_in_the_end_it_is_said(world: World, clock: Clock, notifier: Channels) -> None:
    notifier.fail |= {"page", "incidents", "email"}
    incident_id = report(world, Severity.MEDIUM, by_alert=False)
    minutes(world, clock, 15)
    assert paged(notifier) == []
    said = told(world, incident_id, "delivery")
    assert "incidents has failed 3 times: On-Call ML Engineer is paged by email instead" in said
    assert "email has failed 3 times and no other channel is left for On-Call ML Engineer" in said


def test_a_channel_that_reaches_somebody_is_preferred(world: World, clock: Clock, notifier: Channels) -> None:
    notifier.fail.add("page")
    notifier.bare = frozenset({"incidents"})
    report(world, Severity.MEDIUM, by_alert=False)
    minutes(world, clock, 8)
    assert paged(notifier) == ["email"]


def test_an_address_that_is_none_is_not_tried_three_times_first(world: World, clock: Clock, notifier: Channels) -> None:
    notifier.wrong = frozenset({"page"})
    incident_id = report(world, Severity.CRITICAL, by_alert=False)
    deliver(world)
    deliver(world)
    assert paged(notifier) == ["incidents"]
    assert any("page has failed once" in t for t in told(world, incident_id, "delivery"))


def test_of_a_notice_that_cannot_be_sent_somebody_is_paged(world: World, clock: Clock, notifier: Channels) -> None:
    notifier.fail.add("security")
    incident_id = report(world, Severity.HIGH, by_alert=False)
    with world.transaction() as conn:
        incident = incidents.get(conn, incident_id)
        update_notice(conn, world.policy, incident, number=1, now=clock())
        [to] = receivers(world.policy.contacts.security, "security team")
        send_message(conn, world.policy, incident, to, Rendered("look", "now"), key="x", now=clock())
    minutes(world, clock, 6)
    assert any("the channel security does not take messages; security team must be told by hand" in m.body for m in notifier.pages())


@pytest.mark.parametrize("settled_first", [False, True], ids=["while the page is sent", "and the service is told before the page arrives"])
@pytest.mark.parametrize("ends", ["acknowledge", "resolve"])
def test_a_page_that_was_on_its_way_is_settled_once_it_has_arrived(
    world: World, clock: Clock, notifier: Channels, ends: str, settled_first: bool
) -> None:
    incident_id = report(world, Severity.HIGH, by_alert=False)
    minutes(world, clock, 0)
    heard: list[str] = []
    first = f"page:{incident_id}:oncall_ml_engineer:page"
    begun: list[str] = []
    send, settle = notifier.send, notifier.settle

    def slowly(message: Message) -> None:
        if message.key == first and not begun:  # the lead's page goes out in another thread at the same time
            begun.append(message.key)
            with world.transaction() as conn:
                incidents.get(conn, incident_id, lock=True)
                if ends == "resolve":
                    stop(conn, incident_id, now=clock())
                else:
                    acknowledge(conn, incident_id, by="an engineer", role="oncall_ml_engineer", now=clock())
            if settled_first:
                clock.advance(minutes=1)  # its claim has run out, and the try is given up
                Dispatcher(world).turn()
        if message.key in begun:
            heard.append("page")
        send(message)

    def told_to(message: Message, action: str) -> bool:
        heard.append(action)
        return settle(message, action)

    notifier.send, notifier.settle = slowly, told_to  # type: ignore[method-assign]
    clock.advance(minutes=2)
    deliver(world)
    assert "page" in heard
    assert heard[-1] == ends, "the paging service heard of the end after the page"


def test_a_page_that_was_on_its_way_when_its_dispatcher_died_is_settled(world: World, clock: Clock, notifier: Channels) -> None:
    """Nobody knows whether the service took it: it is told all the same."""
    incident_id = report(world, Severity.HIGH, by_alert=False)
    clock.advance(minutes=2)
    with world.transaction() as conn:
        assert outbox.claim(conn, now=clock(), kinds=("page",))
    with world.transaction() as conn:
        incidents.get(conn, incident_id, lock=True)
        stop(conn, incident_id, now=clock())
    deliver(world)
    assert notifier.settled == [], "it may still be on its way"
    clock.advance(minutes=1)
    deliver(world)
    assert set(notifier.settled) == {(incident_id, "page", "resolve")}
    assert not notifier.pages()


def test_who_acknowledges_and_the_end_are_told_to_the_service_that_was_called(world: World, clock: Clock, notifier: Channels) -> None:
    incident_id = report(world, Severity.HIGH, by_alert=False)
    minutes(world, clock, 2)
    with world.transaction() as conn:
        acknowledge(conn, incident_id, by="an engineer", role="oncall_ml_engineer", now=clock())
    deliver(world)
    with world.transaction() as conn:
        incidents.get(conn, incident_id, lock=True)
        stop(conn, incident_id, now=clock())
        stop(conn, incident_id, now=clock())
    deliver(world)
    assert notifier.settled == [(incident_id, "page", "acknowledge"), (incident_id, "page", "resolve")]
    assert told(world, incident_id, "delivery")[-1] == "The paging service of page was told: resolved"
