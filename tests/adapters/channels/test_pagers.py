"""PagerDuty's Events API and mail over SMTP, against fakes that speak the wire and keep a ledger."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope

from mlrunbook.adapters.channels import channel_test
from mlrunbook.adapters.channels.notifier import LEDGER, ChannelNotifier
from mlrunbook.domain.errors import Refused, Transient
from mlrunbook.ports import Message

PAGE = Message("page:incident_7:ml_team_lead:page", "incident_7", "page", "[HIGH] F1 fell\n@here", "Act now", page=True, severity="high")
KEY = "R0UT1NGKEY0000000000000000000001"


class PagerDuty:
    """Takes events as the real one: 202 with the key, 400 for an event that is wrong, 429 when told to."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.busy = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                code, body = outer.take(self.path, event)
                content = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"pagerduty-events://{KEY}?host=127.0.0.1:{self._server.server_port}&tls=no"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def take(self, path: str, event: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.busy:
            return 429, {"status": "throttle exceeded", "message": "Requests for this service are arriving too quickly."}
        needed = {"summary", "source", "severity"} if event.get("event_action") == "trigger" else set()
        wrong = path != "/v2/enqueue" or event.get("routing_key") != KEY or needed - set(event.get("payload", {}))
        if wrong or event["event_action"] not in ("trigger", "acknowledge", "resolve"):
            return 400, {"status": "invalid event", "message": "Event object is invalid", "errors": ["no such key"]}
        self.events.append(event)
        return 202, {"status": "success", "message": "Event processed", "dedup_key": event["dedup_key"]}

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def pagerduty() -> Iterator[PagerDuty]:
    service = PagerDuty()
    yield service
    service.stop()


def ledger(folder: Path) -> list[str]:
    file = folder / LEDGER
    return [json.loads(row)["delivered_by"] for row in file.read_text().splitlines()] if file.exists() else []


def test_one_key_goes_through_trigger_acknowledge_and_resolve(tmp_path: Path, pagerduty: PagerDuty) -> None:
    notifier = ChannelNotifier(tmp_path, {"page": pagerduty.address}.get)
    notifier.send(PAGE)
    assert notifier.settle(PAGE, "acknowledge")
    assert notifier.settle(PAGE, "resolve")
    assert [(e["event_action"], e["dedup_key"]) for e in pagerduty.events] == [
        ("trigger", "mlrunbook:incident_7"),
        ("acknowledge", "mlrunbook:incident_7"),
        ("resolve", "mlrunbook:incident_7"),
    ]
    shown = pagerduty.events[0]["payload"]
    assert (shown["severity"], shown["summary"]) == ("error", "[HIGH] F1 fell @\u2060here")
    assert ledger(tmp_path) == ["pagerduty-events"]


def test_the_paging_service_shows_the_console_as_a_button_and_in_the_text(tmp_path: Path, pagerduty: PagerDuty) -> None:
    notifier = ChannelNotifier(tmp_path, {"page": pagerduty.address}.get)
    link = "https://mlrunbook.example.com/incidents/incident_7"
    notifier.send(replace(PAGE, link=link, body=f"Act now\nConsole: {link}\n\n" + "x" * 200_000))
    notifier.settle(replace(PAGE, link=link), "acknowledge")
    first, then = pagerduty.events
    assert first["client_url"] == link
    assert [one["href"] for one in first["links"]] == [link]
    assert link in first["payload"]["custom_details"]["message"]
    assert "links" not in then, "an acknowledgement has none"


def test_a_busy_service_is_worth_another_try_and_a_wrong_key_is_not(tmp_path: Path, pagerduty: PagerDuty) -> None:
    pagerduty.busy = True
    with pytest.raises(Transient, match="429"):
        ChannelNotifier(tmp_path, {"page": pagerduty.address}.get).send(PAGE)
    pagerduty.busy = False
    other = pagerduty.address.replace(KEY, "X" * 32)
    with pytest.raises(Refused, match="no such key") as caught:
        ChannelNotifier(tmp_path, {"page": other}.get).send(PAGE)
    assert "X" * 32 not in str(caught.value)
    assert ledger(tmp_path) == []


@pytest.mark.parametrize("address", ["pagerduty-events://short", f"pagerduty-events://{KEY}x", "pagerduty-events://"])
def test_an_address_without_a_routing_key_is_refused_by_its_variable(tmp_path: Path, address: str) -> None:
    with pytest.raises(Refused, match="MLRUNBOOK_CHANNEL_PAGE"):
        ChannelNotifier(tmp_path, lambda _: address).send(PAGE)


def test_a_channel_that_keeps_no_alerts_has_nothing_to_settle(tmp_path: Path) -> None:
    for address in (None, "json://127.0.0.1:9/"):
        assert not ChannelNotifier(tmp_path, {"page": address}.get).settle(PAGE, "resolve")


class MailServer:
    """Keeps the mails it takes; `refuse` is an answer it gives instead, `unknown` a recipient it does not have."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.refuse = self.unknown = ""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.address = f"smtp://127.0.0.1:{port}/?to=team@example.com,lead@example.com&from=runbook@example.com"
        self.controller = Controller(self, hostname="127.0.0.1", port=port)

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Envelope, address: str, _options: Any) -> str:
        if address == self.unknown:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Envelope) -> str:
        if self.refuse:
            return self.refuse
        assert isinstance(envelope.content, bytes)
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))  # type: ignore[arg-type]
        return "250 OK"


@pytest.fixture(scope="module")
def mail_server() -> Iterator[MailServer]:
    server = MailServer()
    server.controller.start()
    yield server
    server.controller.stop()


def test_the_mails_of_one_incident_are_one_thread(tmp_path: Path, mail_server: MailServer) -> None:
    mail_server.mails.clear()
    notifier = ChannelNotifier(tmp_path, {"email": mail_server.address}.get)
    for key, incident in (("initial", "incident_7"), ("update-1", "incident_7"), ("other", "incident_8"), ("resolved", "incident_7")):
        notifier.send(replace(PAGE, key=key, incident_id=incident, channel="email"))
    first, update, other, resolved = mail_server.mails
    assert first["To"] == "team@example.com, lead@example.com"
    assert first["Subject"] == "[HIGH] F1 fell @\u2060here"
    assert (first["In-Reply-To"], other["In-Reply-To"]) == (None, None)
    assert update["In-Reply-To"] == update["References"] == resolved["References"] == first["Message-ID"]
    assert len({m["Message-ID"] for m in mail_server.mails}) == 4
    assert ledger(tmp_path) == ["smtp"] * 4


@pytest.mark.parametrize(("answer", "kind"), [("451 4.3.0 later", Transient), ("550 5.7.1 no", Refused)])
def test_a_mail_server_says_whether_another_try_is_worth_it(
    tmp_path: Path, mail_server: MailServer, answer: str, kind: type[Exception]
) -> None:
    mail_server.refuse = answer
    try:
        with pytest.raises(kind, match="channel email"):
            ChannelNotifier(tmp_path, {"email": mail_server.address}.get).send(replace(PAGE, channel="email"))
    finally:
        mail_server.refuse = ""
    assert ledger(tmp_path) == []


def test_a_mail_address_that_is_none_is_refused_and_not_repeated(tmp_path: Path) -> None:
    for address in ("smtp://user:s3cret@host/", "smtp:///?to=a@b", "smtp://user:s3cret@host:port/?to=a@b"):
        with pytest.raises(Refused, match="MLRUNBOOK_CHANNEL_EMAIL") as caught:
            ChannelNotifier(tmp_path, lambda _, a=address: a).send(replace(PAGE, channel="email"))
        assert "s3cret" not in str(caught.value)


AT = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


@pytest.fixture
def tester() -> Iterator[channel_test.ChannelTest]:
    with channel_test.ChannelTest() as one:
        yield one


def a_test(channel: str = "page") -> Message:
    return channel_test.message(channel, asked_by="lee on laptop", at=AT)


def test_a_test_page_rings_under_a_key_of_its_own_and_is_resolved_again(pagerduty: PagerDuty, tester: channel_test.ChannelTest) -> None:
    open_at_the_time: list[str] = []
    said = tester.ring(a_test(), pagerduty.address, meanwhile=lambda: open_at_the_time.extend(e["event_action"] for e in pagerduty.events))
    first, last = pagerduty.events
    assert open_at_the_time == ["trigger"]
    assert (first["event_action"], last["event_action"]) == ("trigger", "resolve")
    assert first["dedup_key"] == last["dedup_key"]
    assert first["dedup_key"] != a_test().incident_id, "two tests never join each other"
    shown = first["payload"]
    assert shown["summary"].startswith("[TEST]")
    assert "lee on laptop" in shown["custom_details"]["message"]
    assert "2026-03-02 09:30" in shown["custom_details"]["message"]
    assert "Event processed" in said


def test_a_test_page_that_is_broken_off_is_resolved_all_the_same(pagerduty: PagerDuty, tester: channel_test.ChannelTest) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tester.ring(a_test(), pagerduty.address, meanwhile=interrupted)
    assert [e["event_action"] for e in pagerduty.events] == ["trigger", "resolve"]


def test_a_test_page_that_cannot_be_resolved_is_named_for_somebody_to_do_it(pagerduty: PagerDuty, tester: channel_test.ChannelTest) -> None:
    def then_busy() -> None:
        pagerduty.busy = True

    with pytest.raises(Refused, match=r"mlrunbook:channel-test-.* is still open"):
        tester.ring(a_test(), pagerduty.address, meanwhile=then_busy)


def test_a_test_by_mail_says_that_the_server_took_it(mail_server: MailServer, tester: channel_test.ChannelTest) -> None:
    mail_server.mails.clear()
    assert "took it" in tester.send(a_test("email"), mail_server.address)
    (mail,) = mail_server.mails
    assert mail["Subject"].startswith("[TEST]")
    assert "lee on laptop" in mail.get_content()
    mail_server.refuse = "550 no such user"
    try:
        with pytest.raises(Refused, match="550"):
            tester.send(a_test("email"), mail_server.address)
    finally:
        mail_server.refuse = ""


def test_a_test_by_mail_that_one_of_two_recipients_would_miss_has_failed(mail_server: MailServer, tester: channel_test.ChannelTest) -> None:
    mail_server.unknown = "lead@example.com"
    try:
        with pytest.raises(Refused, match="refused 1 of its recipients") as caught:
            tester.send(a_test("email"), mail_server.address)
    finally:
        mail_server.unknown = ""
    assert "MLRUNBOOK_CHANNEL_EMAIL" in str(caught.value)
