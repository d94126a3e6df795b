"""Attacks on what takes messages in: each says what is tried, and returns True if it worked."""

from __future__ import annotations

import json
import threading
import time
from datetime import timedelta
from typing import Any

from benchmarks.promises.site import Site
from mlrunbook.adapters.channels.notifier import ChannelNotifier
from mlrunbook.base.tokens import Scope
from mlrunbook.gateway import dispatcher as dispatching
from mlrunbook.gateway.dispatcher import Dispatcher
from mlrunbook.ports import Message
from mlrunbook.store import outbox
from tests.fakes import MODEL, LedgerNotifier

EVENTS = {"Content-Type": "application/cloudevents+json"}
MANY, WITHIN_S, USELESS = 3_000, 30.0, 60


def _event(source: str, number: str, kind: str) -> dict[str, Any]:
    said = {"model": MODEL, "severity": "critical"}
    return {"specversion": "1.0", "id": number, "source": source, "type": kind, "time": "2026-03-29T00:00:00Z", "data": said}


def _alertmanager(*labels: dict[str, str], status: str = "firing", starts_at: str = "2026-03-29T00:00:00Z") -> bytes:
    known = {"alertname": "ModelF1Drop", "severity": "critical", "model": MODEL}
    alerts = [{"status": status, "labels": known | more, "annotations": {"summary": "x"}, "startsAt": starts_at} for more in labels]
    return json.dumps({"version": "4", "status": status, "groupKey": "{}", "alerts": alerts}).encode()


def delivery_ids_of_another_sender_swallow_an_alert(site: Site) -> bool:
    """A stranger uses the numbers of a sender's next deliveries; then the sender's true alerts come."""
    http, stranger, sender = site.http(), site.key("a stranger", Scope.ALERTS), site.key("the fleet", Scope.ALERTS)
    forged = [("/pump", "42"), ("/a b", "c"), ("/" + "s" * 400, "1")]
    true = [("/pump", "42"), ("/a", "b c"), ("/" + "s" * 400, "1")]
    for source, number in forged:
        http.post("/webhooks/cloudevents", headers=stranger | EVENTS, json=_event(source, number, "x.resolved"))
    answers = [http.post("/webhooks/cloudevents", headers=sender | EVENTS, json=_event(*one, "ModelF1Drop")).json() for one in true]
    return any(a.get("duplicate") or not a.get("incidents") for a in answers)


def a_value_that_the_database_refuses_takes_its_message_with_it(site: Site) -> bool:
    """An alert that cannot be stored, in one message with one that can: the good one is lost, or the answer is an error for ever."""
    http, key = site.http(), site.key("the fleet", Scope.ALERTS)
    for n, bad in enumerate(({"alertname": "x" * 9_000}, {"instance": "a\x00b"}, {"instance": "\ud800"}, {"team": "y" * 200_000})):
        good = {"instance": f"good-{n}"}
        body = _alertmanager(bad, good)
        if http.post("/webhooks/alertmanager", headers=key, content=body).status_code != 202:
            return True
        if not site.sql("SELECT 1 FROM alerts WHERE body -> 'labels' ->> 'instance' = :name", name=f"good-{n}"):
            return True
    return False


def dates_at_the_ends_of_the_calendar_break_a_door(site: Site) -> bool:
    """Alerts, changes and reports of the years 1 and 9999, then the pages that show them."""
    http, key = site.http(), site.key("the lead", role="ml_team_lead")
    for at in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-23:59"):
        change = {"model": MODEL, "kind": "config", "ref": "r", "author": "a", "at": at}
        answers = [
            http.post("/webhooks/alertmanager", headers=key, content=_alertmanager({"instance": at}, starts_at=at)),
            http.post("/webhooks/generic", headers=key, json={"model": MODEL, "kind": "x", "started_at": at}),
            http.post("/api/v1/changes", headers=key, json=change),
            http.get("/api/v1/incidents", headers=key),
            http.get("/api/v1/incidents/incident_1", headers=key),
        ]
        if any(a.status_code >= 500 for a in answers):
            return True
    return False


def thousands_of_alerts_or_ends_in_one_message_hold_the_door(site: Site) -> bool:
    """Some thousand distinct alerts in one message, then their ends: the second is where the work was quadratic."""
    http, key = site.http(), site.key("the fleet", Scope.ALERTS)
    labels = [{"instance": str(n)} for n in range(MANY)]
    for status in ("firing", "resolved"):
        began_s = time.monotonic()
        answer = http.post("/webhooks/alertmanager", headers=key, content=_alertmanager(*labels, status=status))
        if answer.status_code != 202 or time.monotonic() - began_s > WITHIN_S:
            return True
    return site.sql("SELECT count(*) FROM alerts")[0][0] != MANY


def useless_parts_fill_the_quarantine(site: Site) -> bool:
    """60,000 parts of two bytes in one message: a row each would be a million rows a minute."""
    body = b'{"version":"4","alerts":[' + b"1," * 59_999 + b"1]}"
    answer = site.http().post("/webhooks/alertmanager", headers=site.key("the fleet", Scope.ALERTS), content=body)
    return answer.status_code >= 500 or site.sql("SELECT count(*) FROM quarantine")[0][0] > 200


def useless_rows_of_the_outbox_hold_up_a_page(site: Site) -> bool:
    """Rows of every kind by the dozen with a payload nobody can read, all due before a critical page."""
    incident_id, due = site.critical(), site.clock() - timedelta(hours=1)
    useless: tuple[Any, ...] = ({}, None, [])
    with site.world.transaction() as conn:
        for kind in (*dispatching.URGENT, *dispatching.ORDINARY, "unheard_of"):
            for n in range(USELESS):
                key = f"{kind}-{n}-bad"
                outbox.put(conn, kind, key, useless[n % len(useless)], now=due, incident_id=incident_id)
    dispatcher = Dispatcher(site.world)
    for _ in range(60):
        dispatcher.turn()
        if site.notifier.pages():
            return False
    return True


def a_folder_of_messages_that_cannot_be_written_stops_pages(site: Site) -> bool:
    """The folder is no folder: as on a full or read-only disk, nothing can be written there."""
    blocked = site.folder / "no-folder"
    blocked.write_text("a file")
    sent: list[str] = []

    class Takes:
        def warm(self) -> None: ...

        def deliver(self, message: Message, address: str, **_: Any) -> Any:
            sent.append(message.key)
            return type("Taken", (), {"by": "test"})()

    notifier = ChannelNotifier(blocked / "messages", lambda _: "pagerduty-events://" + "a" * 32, Takes())  # type: ignore[arg-type]
    notifier.send(Message("k1", "incident_1", "page", "subject", "body", page=True, severity="critical"))
    return sent != ["k1"]


def a_channel_that_hangs_holds_up_another(site: Site) -> bool:
    """The channel of messages takes them and never answers; meanwhile a critical page is due by another."""
    release, paged = threading.Event(), threading.Event()

    class Hangs(LedgerNotifier):
        def send(self, message: Message) -> None:
            if not message.page:
                release.wait(60)
            super().send(message)
            paged.set() if message.page else None

    notifier = Hangs()
    site.critical()
    world = type(site.world)(**site.world.__dict__ | {"notifier": notifier})
    dispatcher = Dispatcher(world, every_s=0.2)
    thread = threading.Thread(target=dispatcher.run, daemon=True)
    thread.start()
    held_up = not paged.wait(20)
    release.set()
    dispatcher.stop()
    thread.join(15)
    return held_up


def wrong_tokens_are_tried_without_end(site: Site) -> bool:
    """A thousand tokens guessed from one address; a right one must still pass."""
    http, right = site.http(), site.key("a reader", Scope.READ)
    codes = [http.get("/api/v1/incidents", headers={"Authorization": f"Bearer mlrb_{n:08x}_{'x' * 43}"}).status_code for n in range(1_000)]
    return codes.count(429) < 500 or http.get("/api/v1/incidents", headers=right).status_code != 200


def names_are_found_without_a_token(site: Site) -> bool:
    """Without a token, a right model and incident must be answered as a wrong one is."""
    incident_id = site.critical()
    http = site.http()
    pairs = ((MODEL, incident_id), ("another_model", incident_id), (MODEL, "incident_99"))
    answers = {http.get(f"/api/v1/model-governance/{model}/incidents/{i}").status_code for model, i in pairs}
    return answers != {401}


def a_jump_of_the_clock_delays_a_page(site: Site) -> bool:
    """The host's clock jumps back an hour right after a critical incident was opened; the page must go out within ten real minutes."""
    elapsed_s = 0.0
    dispatcher = Dispatcher(site.world, monotonic=lambda: elapsed_s)
    dispatcher.turn()
    site.critical()
    site.clock.advance(hours=-1)
    for _ in range(40):
        dispatcher.turn()
        site.clock.advance(seconds=15)
        elapsed_s += 15
    return not site.notifier.pages()


ATTACKS = (
    delivery_ids_of_another_sender_swallow_an_alert,
    a_value_that_the_database_refuses_takes_its_message_with_it,
    dates_at_the_ends_of_the_calendar_break_a_door,
    thousands_of_alerts_or_ends_in_one_message_hold_the_door,
    useless_parts_fill_the_quarantine,
    useless_rows_of_the_outbox_hold_up_a_page,
    a_folder_of_messages_that_cannot_be_written_stops_pages,
    a_channel_that_hangs_holds_up_another,
    wrong_tokens_are_tried_without_end,
    names_are_found_without_a_token,
    a_jump_of_the_clock_delays_a_page,
)
