"""Takes in what a format has read out of a message: incidents, changes, words about incidents, and what must be kept aside.

The webhooks, the mailbox and the replay of the quarantine share it. All of one message is one transaction.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import Field
from sqlalchemy import Connection

from mlrunbook.base.web import CamelModel
from mlrunbook.domain.detection.alerts import NormalisedAlert
from mlrunbook.domain.errors import NotFound, Refused
from mlrunbook.domain.policy.owned import Standing
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.roles import Role
from mlrunbook.gateway.text import clean
from mlrunbook.gateway.webhooks.parsing import ExternalNote, Format, Reading, Received, ReportedChange, Unusable
from mlrunbook.response.communication.escalation import acknowledge
from mlrunbook.response.lifecycle.alert_intake import AlertBatch, Hold, note_once, take_in_alerts
from mlrunbook.response.world import World
from mlrunbook.store import alerts as known_alerts
from mlrunbook.store import incidents, quarantine, recent_changes, timeline, webhook_deliveries

log = logging.getLogger(__name__)


class Receipt(CamelModel):
    """What became of a message: all of it is stored when this is answered."""

    accepted: int = Field(default=0, description="Alerts taken in, repeats and resolved ones too")
    quarantined: int = Field(default=0, description="Parts that were kept aside because they cannot be used")
    changes: int = Field(default=0, description="Changes near a model that were taken in")
    incidents: list[str] = Field(default_factory=list, description="Ids of the incidents the message belongs to")
    duplicate: bool = Field(default=False, description="This delivery came before; it is answered as it was then")

    def __add__(self, other: Receipt) -> Receipt:
        return Receipt(
            accepted=self.accepted + other.accepted,
            quarantined=self.quarantined + other.quarantined,
            changes=self.changes + other.changes,
            incidents=list(dict.fromkeys(self.incidents + other.incidents)),
            duplicate=self.duplicate or other.duplicate,
        )


def received(body: bytes, headers: Mapping[str, str], world: World) -> Received:
    """The message with its JSON read, if it is any."""
    try:
        payload, problem = json.loads(body), None
    except (ValueError, RecursionError) as error:
        payload, problem = None, f"not JSON: {error}"
    return Received(payload, headers, world.now(), world.policy.intake, problem)


def ingest(world: World, form: Format, message: Received, body: bytes, *, sender: str) -> Receipt:
    """Read the message and store all of it, or nothing: an error of the store is the sender's reason to send it again."""
    readings = form.read(message)
    letter, total = Letter(form, message, body, sender, _standings(world, readings)), Receipt()
    with world.transaction() as conn:
        for reading in readings:
            total += _take_one(conn, world.policy, letter, reading)
    unusable = [one for reading in readings for one in reading.unusable]
    if unusable:
        reason = clean(unusable[0].reason, 300).replace("\n", " ")
        log.warning("quarantined %d part(s) of a %s message of %s: %s", len(unusable), form.name, sender, reason)
    return total


@dataclass(frozen=True)
class Letter:
    """One message on its way into the store, with what is known of the models it names."""

    form: Format
    message: Received
    body: bytes
    sender: str
    standings: Mapping[str, Standing]

    def keep(self, conn: Connection, one: Unusable) -> None:
        """Aside, as it came."""
        kept, reason = headers_kept(self.form, self.message.headers), clean(one.reason, 500)
        part = _bytes(one, self.body)
        quarantine.keep(conn, source=self.form.name, body=part, error=reason, now=self.message.at, sender=self.sender, headers=kept)


def _standings(world: World, readings: Iterable[Reading]) -> dict[str, Standing]:
    """Asked before the store's transaction begins: a registry that hangs must not hold it open."""
    return world.known_models.of(world.policy, {alert.model for reading in readings for alert in reading.alerts if alert.firing})


def _take_one(conn: Connection, policy: Policy, letter: Letter, reading: Reading) -> Receipt:
    form, message = letter.form, letter.message
    delivery = clean(reading.delivery_id, 300) if reading.delivery_id else None
    if delivery and (before := webhook_deliveries.begin(conn, form.name, delivery, now=message.at)) is not None:
        return Receipt.model_validate(before).model_copy(update={"duplicate": True})
    held: list[Unusable] = []

    def hold(alert: NormalisedAlert, why: str, is_new: bool) -> None:
        if is_new:
            held.append(Unusable(alert.part, why))

    receipt = store(conn, policy, letter, reading, hold=hold, now=message.at)
    for one in (*reading.unusable, *held):
        letter.keep(conn, one)
    receipt = receipt.model_copy(update={"quarantined": receipt.quarantined + len(held), "accepted": receipt.accepted - len(held)})
    if delivery:
        webhook_deliveries.answered(conn, form.name, delivery, receipt.model_dump(mode="json", by_alias=True))
    return receipt


def store(conn: Connection, policy: Policy, letter: Letter, reading: Reading, *, hold: Hold, now: datetime) -> Receipt:
    """What can be used of the reading; what cannot is only counted, and what must wait goes to `hold`."""
    form, known = letter.form, letter.standings
    batch = AlertBatch(form.name, reading.alerts, reading.truncated)
    ids = dict.fromkeys(take_in_alerts(conn, policy, batch, standings=known, hold=hold, now=now))
    for told in reading.changes:
        take_change(conn, told, source=form.name, now=now)
    for word in reading.words:
        if about := _take_word(conn, form.name, word, now=now):
            ids[about] = None
    return Receipt(accepted=len(reading.alerts), quarantined=len(reading.unusable), changes=len(reading.changes), incidents=list(ids))


def take_change(conn: Connection, told: ReportedChange, *, source: str, now: datetime) -> bool:
    """Keep a change and note it on what is open about that model. False when it is known."""
    change = told.change
    if not recent_changes.put(conn, told.model, change, source=source, now=now):
        return False
    for incident in incidents.find(conn, model=told.model, only_open=True):
        incidents.get(conn, incident.id, lock=True)
        words = f"{source} tells of a change: {change.kind.replace('_', ' ')} {change.ref} by {change.author} at {change.at.isoformat()}"
        timeline.append(conn, incident.id, "change", words, actor=source, at=now)
    return True


def _take_word(conn: Connection, source: str, word: ExternalNote, *, now: datetime) -> str | None:
    """The incident that the word is about; None when nothing here is."""
    incident_id = word.incident_id or known_alerts.incident_of(conn, source=source, fingerprint=word.fingerprint or "")
    try:
        incident = incidents.get(conn, incident_id, lock=True) if incident_id else None
    except NotFound:
        incident = None
    if incident is None:
        return None
    if word.kind == "acknowledged" and incident.status.is_open:
        acknowledge(conn, incident.id, by=word.by, role=Role.ONCALL_ML_ENGINEER, now=now)
    else:
        note_once(conn, incident.id, source, clean(word.text, 1000), word.key, now=now)
    return incident.id


def replay(world: World, form: Format, number: int) -> Receipt:
    """Read a quarantined message again, after the policy names its model for example. Refused, with the reason, while it cannot be used."""
    with world.transaction() as conn:
        kept = quarantine.get(conn, number)
    message = received(kept.body, kept.headers, world)
    whole = Received(form.whole(message.payload), message.headers, kept.received_at, message.policy, message.problem)
    readings = form.read(whole)
    if wrong := next((one.reason for reading in readings for one in reading.unusable), None):
        raise Refused(f"number {number} still cannot be used: {clean(wrong, 500)}")
    models = {alert.model for reading in readings for alert in reading.alerts if alert.firing}
    letter = Letter(form, whole, kept.body, kept.sender, world.known_models.of(world.policy, models, fresh=True))

    def refuse(_: NormalisedAlert, why: str, is_new: bool) -> None:
        raise Refused(f"number {number} still cannot be used: {clean(why, 500)}")

    with world.transaction() as conn:
        kept = quarantine.get(conn, number, lock=True)
        if kept.replayed_at is not None:
            raise Refused(f"number {number} was replayed at {kept.replayed_at.isoformat()}")
        total = Receipt()
        for reading in readings:
            total += store(conn, world.policy, letter, reading, hold=refuse, now=world.now())
        quarantine.mark_replayed(conn, number, total.model_dump(mode="json", by_alias=True), now=world.now())
    return total


def headers_kept(form: Format, headers: Mapping[str, str]) -> dict[str, str]:
    """What a normaliser reads, and nothing that proves the sender."""
    prefix = form.header_prefix
    return {
        name: clean(value, 1000)
        for name, value in headers.items()
        if name in ("content-type", *form.header_names) or (prefix and name.startswith(prefix))
    }


def _bytes(one: Unusable, message: bytes) -> bytes:
    if one.part is None:
        return message
    try:
        return json.dumps(one.part).encode()
    except (ValueError, RecursionError):  # nested as deep as could just be read
        return message
