"""Alerts by mail, over real SMTP: proven by a token, stored before they are answered, joined like any other alert."""

from __future__ import annotations

import smtplib
import socket
import subprocess
import time
from collections.abc import Iterator
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrunbook.base import tokens
from mlrunbook.base.edge import Edge, Limits
from mlrunbook.base.tokens import Scope
from mlrunbook.domain.errors import Transient
from mlrunbook.gateway.webhooks import mail as mail_door
from mlrunbook.gateway.webhooks import mail_parsing
from mlrunbook.gateway.webhooks.mail import Inbox, Mailbox
from mlrunbook.response.world import World
from mlrunbook.store import alerts, incidents, quarantine
from tests.gateway.conftest import Clock, Keys


@pytest.fixture(scope="module")
def mailbox(world: World) -> Iterator[Mailbox]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    mailbox = Mailbox(world, "127.0.0.1", port)
    mailbox.start()
    yield mailbox
    mailbox.stop()


def mail(model: str, *, subject: str = "[FIRING:1] AUC low", to: str = "alerts@ir.example.com", **fields: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "monitor@example.com", to, subject
    lines = {"Model": model, "Severity": "critical", "Summary": f"AUC of {model} is low"} | fields
    message.set_content("\n".join(f"{name}: {value}" for name, value in lines.items()) + "\n\nDetails below.\n")
    return message


def send(mailbox: Mailbox, message: EmailMessage, to: str | None = None) -> tuple[int, str]:
    """(code, words) of the answer to the message."""
    with smtplib.SMTP("127.0.0.1", mailbox.port, timeout=60) as client:
        client.ehlo()
        client.mail("monitor@example.com")
        code, words = client.rcpt(to or str(message["To"]))
        if code < 400:
            code, words = client.data(message.as_bytes(policy=SMTP))
    return code, words.decode()


def of_model(world: World, model: str) -> list[Any]:
    with world.transaction() as conn:
        return incidents.find(conn, model=model)


def test_a_mail_with_a_token_in_its_recipient_opens_an_incident_and_its_end_is_noted(
    mailbox: Mailbox, world: World, keys: Keys, clock: Clock, model: str
) -> None:
    to = f"alerts+{keys.token('monitor', Scope.ALERTS)}@ir.example.com"
    assert send(mailbox, mail(model), to)[0] == 250
    (incident,) = of_model(world, model)
    assert (incident.severity, incident.reported_by, incident.description) == ("high", "email", f"AUC of {model} is low")
    clock.pass_(minutes=5)
    assert send(mailbox, mail(model, subject="[RESOLVED] AUC low"), to)[0] == 250
    with world.transaction() as conn:
        (alert,) = alerts.of_incident(conn, incident.id)
    assert (alert["status"], alert["count"]) == ("resolved", 2)
    assert "mlrb_" not in str(alert["body"]), "a token is nowhere kept"


def test_the_token_may_stand_in_the_subject_and_is_not_kept(mailbox: Mailbox, world: World, keys: Keys, model: str) -> None:
    tagged = mail(model, subject=f"AUC low [{keys.token('monitor', Scope.ALERTS)}]")
    del tagged["Summary"]
    assert send(mailbox, tagged)[0] == 250
    (incident,) = of_model(world, model)
    assert "mlrb_" not in incident.description


@pytest.mark.parametrize("scopes", [(), (Scope.READ,)])
def test_without_a_token_of_the_scope_nothing_is_stored(
    mailbox: Mailbox, world: World, keys: Keys, model: str, scopes: tuple[Scope, ...]
) -> None:
    to = f"alerts+{keys.token('x', *scopes)}@ir.example.com" if scopes else "alerts@ir.example.com"
    with world.transaction() as conn:
        before = quarantine.waiting(conn)
    assert send(mailbox, mail(model), to)[0] == 550
    with world.transaction() as conn:
        assert quarantine.waiting(conn) == before
    assert of_model(world, model) == []


def test_the_same_mail_again_changes_nothing(mailbox: Mailbox, world: World, keys: Keys, model: str) -> None:
    message = mail(model)
    message["Message-ID"] = f"<{model}@monitor.example.com>"
    to = f"alerts+{keys.token('monitor', Scope.ALERTS)}@ir.example.com"
    assert [send(mailbox, message, to)[0] for _ in range(2)] == [250, 250]
    assert [incident.alert_count for incident in of_model(world, model)] == [1]


def test_an_html_mail_is_read_by_its_words(mailbox: Mailbox, world: World, keys: Keys, model: str) -> None:
    message = EmailMessage()
    message["Subject"] = f"AUC low [{keys.token('monitor', Scope.ALERTS)}]"
    message["To"] = "alerts@ir.example.com"
    message.set_content(f"<style>p {{}}</style><p>Model: {model}</p><div>Severity: warning</div>", subtype="html")
    assert send(mailbox, message)[0] == 250
    (incident,) = of_model(world, model)
    assert (incident.severity, incident.description) == ("medium", "AUC low")


def test_a_mail_about_no_model_is_quarantined(mailbox: Mailbox, world: World, keys: Keys) -> None:
    message = mail("no model id!")
    code, words = send(mailbox, message, f"alerts+{keys.token('monitor', Scope.ALERTS)}@ir.example.com")
    assert (code, "1 quarantined" in words) == (250, True)
    with world.transaction() as conn:
        newest = quarantine.find(conn, source="email", limit=1)[0]
    assert "no model id" in newest.error


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda t: f"Subject: {t}\r\nModel: x\r\n\r\n{t}".encode(errors="replace")))
def test_whatever_comes_as_a_mail_is_answered(content: bytes) -> None:
    class NoStore:
        def transaction(self) -> Any:
            raise AssertionError("nothing here has a token")

    answer = Inbox(NoStore()).deliver(content, [])  # type: ignore[arg-type]
    assert answer[:3] in ("550", "554", "451")


def test_while_the_store_is_away_a_mail_stays_with_its_sender() -> None:
    class StoreAway:
        def transaction(self) -> Any:
            raise Transient("the incident store is not reachable")

    content = mail("pump", subject="AUC low [mlrb_00000000_" + "x" * 43 + "]").as_bytes()
    assert Inbox(StoreAway()).deliver(content, [])[:3] == "451"  # type: ignore[arg-type]


# What is made to keep a parser busy


def _folded(text: str) -> str:
    return "\r\n ".join(text[i : i + 900] for i in range(0, len(text), 900))


HOSTILE = {
    "sender of parentheses": "From: " + _folded("(" * 60_000) + "\r\n\r\nx",
    "sender of quotes": "From: " + _folded('"' * 60_000) + "\r\n\r\nx",
    "message id of angle brackets": "Message-ID: " + _folded("<" * 60_000) + "\r\n\r\nx",
    "content type of parameters": "Content-Type: text/plain; " + ";\r\n ".join(f"a*{i}*=x" for i in range(5_000)) + "\r\n\r\nx",
    "subject of encoded words": "Subject: " + "\r\n ".join(["=?utf-8?q?a?= " * 60] * 70) + "\r\n\r\nx",
    "parts within parts": "".join(f'Content-Type: multipart/mixed; boundary="b{i}"\r\n\r\n--b{i}\r\n' for i in range(15_000)),
    "parts beside parts": 'Content-Type: multipart/mixed; boundary="b"\r\n\r\n' + "--b\r\n\r\n" * 140_000,
    "open tags": "Content-Type: text/html\r\n\r\n" + "<a " * 340_000,
    "open comments": "Content-Type: text/html\r\n\r\n" + "<!--" * 250_000,
}


def _cpu_s() -> float:
    return time.process_time()


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_mail_of_a_stranger_costs_no_time(what: str) -> None:
    class NoStore:
        def transaction(self) -> Any:
            raise AssertionError("nothing here has a token")

    before = _cpu_s()
    assert Inbox(NoStore()).deliver(HOSTILE[what].encode(), ["alerts@ir.example.com"])[:3] in ("550", "552")  # type: ignore[arg-type]
    assert _cpu_s() - before < 0.2


@pytest.mark.parametrize("what", ["sender of parentheses", "parts within parts"])
def test_a_hostile_mail_of_a_known_sender_is_kept_aside_and_costs_this_process_nothing(world: World, keys: Keys, what: str) -> None:
    to = f"alerts+{keys.token('a broken monitor', Scope.ALERTS)}@ir.example.com"
    before = _cpu_s()
    answer = Inbox(world).deliver(HOSTILE[what].encode(), [to])
    assert answer.startswith("250")
    assert "1 quarantined" in answer
    assert _cpu_s() - before < 0.5


def test_the_parser_knows_none_of_our_secrets_and_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLRUNBOOK_DATABASE_URL", "postgresql://secret")
    seen: list[dict[str, Any]] = []

    def run(argv: list[str], **how: Any) -> Any:
        seen.append(how)
        raise subprocess.TimeoutExpired(argv, how["timeout"])

    monkeypatch.setattr(mail_parsing.subprocess, "run", run)
    kept = mail_parsing.limited(b"Subject: [mlrb_00000000_" + b"x" * 43 + b"] hello\r\n\r\nx")
    assert b"hello" in kept
    assert b"mlrb_" not in kept
    assert not any("secret" in value for value in seen[0]["env"].values())
    assert seen[0]["timeout"] <= 10


@pytest.mark.parametrize("where", ["plain", "encoded", "folded"])
def test_the_token_is_found_in_a_subject_however_it_is_written(world: World, keys: Keys, model: str, where: str) -> None:
    token = keys.token("monitor", Scope.ALERTS)
    subject = {
        "plain": f"low [{token}]",
        "encoded": "=?utf-8?q?low_=5B" + token.replace("_", "=5F") + "=5D?=",
        "folded": f"low\r\n [{token}]",
    }
    content = f"From: a@b.example\r\nSubject: {subject[where]}\r\n\r\nModel: {model}\r\n".encode()
    assert Inbox(world).deliver(content, ["alerts@ir.example.com"]).startswith("250")


def test_a_token_in_the_body_or_in_another_header_proves_nothing(world: World, keys: Keys, model: str) -> None:
    token = keys.token("monitor", Scope.ALERTS)
    for content in (f"X-Subject: {token}\r\n\r\nModel: {model}", f"From: a@b\r\n\r\nSubject: {token}\r\nModel: {model}"):
        assert Inbox(world).deliver(content.encode(), ["alerts@ir.example.com"]).startswith("550")


def test_a_stranger_may_send_less_than_a_known_sender(mailbox: Mailbox, world: World, keys: Keys, model: str) -> None:
    long = mail(model)
    long.set_content(f"Model: {model}\n" + "words and words\n" * 30_000)
    to = f"alerts+{keys.token('monitor', Scope.ALERTS)}@ir.example.com"
    assert send(mailbox, long, to)[0] == 250
    assert send(mailbox, long)[0] == 552


def test_a_line_without_an_end_is_cut_off(mailbox: Mailbox) -> None:
    with smtplib.SMTP("127.0.0.1", mailbox.port, timeout=60) as client:
        client.ehlo()
        client.mail("monitor@example.com")
        client.rcpt("alerts@ir.example.com")
        client.putcmd("data")
        assert client.getreply()[0] == 354
        assert client.sock
        with pytest.raises(ConnectionError):
            client.sock.sendall(b"a" * (64 << 20))
        client.close()


def test_idle_connections_to_the_mail_door_keep_nobody_out(mailbox: Mailbox, keys: Keys, model: str) -> None:
    idle = [socket.create_connection(("127.0.0.1", mailbox.port), timeout=60) for _ in range(mail_door.MAX_CONNECTIONS + 10)]
    assert send(mailbox, mail(model), f"alerts+{keys.token('monitor', Scope.ALERTS)}@ir.example.com")[0] == 250
    for one in idle:
        one.close()


def test_over_its_rate_a_mail_stays_with_its_sender_and_wrong_tokens_are_sent_away(world: World, keys: Keys, model: str) -> None:
    edge = Edge(Limits(per_min_token=1, failed_per_min_address=2))
    inbox, to = Inbox(world, edge), f"alerts+{keys.token('monitor', Scope.ALERTS)}@ir.example.com"
    content = mail(model).as_bytes()
    assert [inbox.deliver(content, [to])[:3] for _ in range(2)] == ["250", "451"]
    assert [inbox.deliver(content, [])[:3] for _ in range(3)] == ["550", "550", "421"]
    assert edge.refused.labels("authentication")._value.get() == 3


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Type: text/plain; charset=x-nobody-knows\r\n\r\nModel: %s\r\n\xff",
        b"Content-Type: text/plain; charset=idna\r\n\r\nModel: %s\r\n",
        b"Content-Type: multipart/alternative; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n \r\n"
        b"--b\r\nContent-Type: text/html\r\n\r\n<table><tr><td>Model</td><td>%s</td></tr></table>\r\n--b--\r\n",
    ],
    ids=["an unknown charset", "a charset that is none", "words in the HTML part alone"],
)
def test_a_mail_is_read_however_its_text_is_written(world: World, keys: Keys, model: str, body: bytes) -> None:
    to = f"alerts+{keys.token('monitor', Scope.ALERTS)}@ir.example.com"
    said = Inbox(world).deliver(b"Subject: =?utf-8?B?W0FVU0dFTMOWU1RdIEFVQw==?=\r\nMIME-Version: 1.0\r\n" + body % model.encode(), [to])
    assert said.startswith("250")
    assert of_model(world, model)


def test_an_answer_is_plain_letters_whatever_a_token_is_called(mailbox: Mailbox, world: World, model: str) -> None:
    with world.transaction() as conn:
        token = tokens.create(conn, name="Größe ✉", scopes=[Scope.ALERTS], limits=tokens.Limits(models=("another",)))
    code, words = send(mailbox, mail(model), f"alerts+{token}@ir.example.com")
    assert (code, words.isascii()) == (550, True)
    assert "another" in words
