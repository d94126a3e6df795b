"""Alerts by mail, over real SMTP: proven by a token, stored before they are answered, joined like any other alert."""

from __future__ import annotations

import smtplib
import socket
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrunbook.base.tokens import Scope
from mlrunbook.domain.errors import Transient
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
    with smtplib.SMTP("127.0.0.1", mailbox.port, timeout=10) as client:
        client.ehlo()
        client.mail("monitor@example.com")
        client.rcpt(to or str(message["To"]))
        code, words = client.data(message.as_bytes())
    return code, words.decode()


def of_model(world: World, model: str) -> list[Any]:
    with world.transaction() as conn:
        return incidents.find(conn, model=model)


def test_a_mail_with_a_token_in_its_recipient_opens_an_incident_and_its_end_is_noted(
    mailbox: Mailbox, world: World, keys: Keys, clock: Clock, model: str
) -> None:
    to = f"alerts+{keys.token('monitor', Scope.INTAKE)}@ir.example.com"
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
    tagged = mail(model, subject=f"AUC low [{keys.token('monitor', Scope.INTAKE)}]")
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
    to = f"alerts+{keys.token('monitor', Scope.INTAKE)}@ir.example.com"
    assert [send(mailbox, message, to)[0] for _ in range(2)] == [250, 250]
    assert [incident.alert_count for incident in of_model(world, model)] == [1]


def test_an_html_mail_is_read_by_its_words(mailbox: Mailbox, world: World, keys: Keys, model: str) -> None:
    message = EmailMessage()
    message["Subject"] = f"AUC low [{keys.token('monitor', Scope.INTAKE)}]"
    message["To"] = "alerts@ir.example.com"
    message.set_content(f"<style>p {{}}</style><p>Model: {model}</p><div>Severity: warning</div>", subtype="html")
    assert send(mailbox, message)[0] == 250
    (incident,) = of_model(world, model)
    assert (incident.severity, incident.description) == ("medium", "AUC low")


def test_a_mail_about_no_model_is_quarantined(mailbox: Mailbox, world: World, keys: Keys) -> None:
    message = mail("no model id!")
    code, words = send(mailbox, message, f"alerts+{keys.token('monitor', Scope.INTAKE)}@ir.example.com")
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
