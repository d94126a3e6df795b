"""Takes in what a format has read out of a message: incidents, changes, words about incidents, and what must be kept aside.

The webhooks, the mailbox and the replay of the quarantine share it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from pydantic import Field
from sqlalchemy import Connection

from mlrunbook.base.settings import webhook_secret_name
from mlrunbook.base.tokens import Identity
from mlrunbook.base.web import CamelModel
from mlrunbook.domain.detection.alerts import INCIDENT_TYPE, MESSAGE, PROVEN_AS, NormalisedAlert
from mlrunbook.domain.detection.verdicts import Outcome
from mlrunbook.domain.errors import NotApproved, NotFound, Refused, Unstorable
from mlrunbook.domain.policy.owned import Standing
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.roles import Role
from mlrunbook.gateway.text import clean
from mlrunbook.gateway.webhooks import proofs
from mlrunbook.gateway.webhooks.judging import Judgement, ModelChange, judge_all, names_in
from mlrunbook.gateway.webhooks.parsing import ExternalNote, Format, Received, Unusable, as_it_came, read_json
from mlrunbook.response.communication.escalation import acknowledge
from mlrunbook.response.lifecycle.alert_intake import AlertBatch, Hold, homes_of, note_once
from mlrunbook.response.measurement.recent_changes import has_ledger
from mlrunbook.response.measurement.registry_ledger import is_hint
from mlrunbook.response.world import World
from mlrunbook.store import alerts as known_alerts
from mlrunbook.store import incidents, quarantine, recent_changes, timeline, webhook_deliveries

log = logging.getLogger(__name__)

# One transaction: others wait for the locks of its models, and for one of the few connections.
SLICE_PARTS, SLICE_MODELS = 1_000, 25
MAX_REFUSALS = 50  # transactions of one message that the database refused; then the slice is put aside as it is
REASON_CHARS = 1_500  # of one quarantined part; an address to open must be in it whole
MAX_ALONE = 100  # unusable parts of one message that are each a row of the quarantine


class Tried(CamelModel):
    """One part of a test."""

    outcome: Outcome
    happens: str | None = Field(description="What it would do, and why; null for a token that may not read, or is limited to models")


class Receipt(CamelModel):
    """What became of a message: all of it is stored when this is answered."""

    accepted: int = Field(default=0, description="Alerts taken in, repeats and resolved ones too")
    quarantined: int = Field(default=0, description="Parts that were kept aside because they cannot be used")
    changes: int = Field(default=0, description="Changes near a model that were taken in")
    incidents: list[str] = Field(default_factory=list, description="Ids of the incidents the message belongs to")
    duplicate: bool = Field(default=False, description="This delivery came before; it is answered as it was then")
    test: list[Tried] | None = Field(default=None, description="Only of a test: nothing was stored, and this is what it would have done")

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
    return read_json(body, headers, world.policy.intake, world.now())


def ingest(world: World, form: Format, message: Received, body: bytes, *, sender: Identity) -> Receipt:
    """Read the message and store all of it. An error of the store is the sender's reason to send it again: what was stored is known then.
    NotApproved when all of it is about models that the sender's token is not good for; what is so of a part of it is quarantined.

    A long message is stored in slices, each a transaction, so that nobody waits for the whole of it. What cannot be used comes last.
    """
    readings, standings = judged(world, form, message, sender)
    letter, total = Letter(form, message, body, sender, standings), Receipt()

    def take(conn: Connection, pieces: Sequence[Judgement]) -> Receipt:
        return _take(conn, world.policy, letter, pieces)

    for some in slices(readings):
        total += _store_slice(world, letter, some, take)
    unusable = [*(one for reading in readings for one in reading.unusable), *letter.refused]
    if unusable:
        with world.transaction() as conn:
            letter.keep(conn, unusable)
        reason = clean(unusable[0].reason, 300).replace("\n", " ")
        log.warning("quarantined %d part(s) of a %s message of %s: %s", len(unusable), form.source, sender.name, reason)
    return total + Receipt(quarantined=len(unusable))


def judged(
    world: World, form: Format, message: Received, sender: Identity, *, fresh: bool = False
) -> tuple[list[Judgement], Mapping[str, Standing]]:
    """What the message says as far as its sender may say it, and what is known of the models it names. To be called before any
    transaction: a registry that hangs must hold none open."""
    read = form.read(message)
    standings = world.known_models.of(world.policy, names_in(read), fresh=fresh, may_see=sender.may_see)
    return confined(judge_all(read, world.policy, standings, received_at=message.at), sender), standings


def confined(readings: Sequence[Judgement], sender: Identity) -> list[Judgement]:
    """What the sender may say. NotApproved when none of it is about a model that its token is good for."""
    if not sender.limits.models:
        return list(readings)
    found, refused, allowed = list[Judgement](), 0, 0
    for reading in readings:
        alerts = [alert for alert in reading.alerts if not alert.model or sender.may_see(alert.model)]
        changes = [told for told in reading.changes if sender.may_see(told.model)]
        why = f"the token of {sender.name} is limited to the models {', '.join(sender.limits.models)}"
        others = [Unusable(alert.part or reading.part, why) for alert in reading.alerts if alert.model and not sender.may_see(alert.model)]
        others += [Unusable(reading.part, why)] * (len(changes) < len(reading.changes))
        refused, allowed = refused + len(others), allowed + len(alerts) + len(changes)
        found.append(replace(reading, alerts=alerts, changes=changes, unusable=[*reading.unusable, *others]))
    if refused and not allowed:
        raise NotApproved(f"{why}, and the message is about others")
    return found


@dataclass
class Letter:
    """One message on its way into the store, with what is known of the models it names, and what the database refused of it."""

    form: Format
    message: Received
    body: bytes
    sender: Identity
    standings: Mapping[str, Standing]
    refused: list[Unusable] = field(default_factory=list)
    refusals: int = 0
    kept: int = 0  # rows of the quarantine

    def keep(self, conn: Connection, unusable: Sequence[Unusable]) -> None:
        """Aside, as it came: each by itself, or many as one message of the same format."""
        together = self.form.together
        if together and len(unusable) > max(1, MAX_ALONE - self.kept):
            parts, whole = [one for one in unusable if one.part is not None], [one for one in unusable if one.part is None]
            reason = f"{len(parts)} parts of one message, the first: {clean(parts[0].reason, 300)}" if parts else ""
            unusable = [Unusable(together([one.part for one in parts]), reason)] * bool(parts) + whole[:1]
        self.kept += len(unusable)
        kept = headers_kept(self.form, self.message.headers)
        for one in unusable:
            part, reason = _bytes(one, self.body), clean(one.reason, REASON_CHARS)
            message = quarantine.Message(self.form.source, part, reason, self.sender.name, kept, proofs.of(self.sender))
            quarantine.keep(conn, message, now=self.message.at)

    def refuse(self, pieces: Sequence[Judgement], why: str) -> Receipt:
        """By the database: these, and never what came with them."""
        self.refused += [Unusable(_part(piece), why) for piece in pieces]
        return Receipt()


def _part(piece: Judgement) -> Any:
    return piece.alerts[0].part if piece.alerts and piece.alerts[0].part is not None else piece.part


def slices(readings: Iterable[Judgement]) -> Iterator[list[Judgement]]:
    """What is stored at once: a part of the message each, but for one that its sender numbered as a whole."""
    some: list[Judgement] = []
    models, ended = set[str](), set[str]()
    for piece in _pieces(readings):
        begins_again = any(alert.firing and alert.fingerprint in ended for alert in piece.alerts)  # what ends is stored after what fires
        if some and (begins_again or len(some) >= SLICE_PARTS or len(models | {a.model for a in piece.alerts}) > SLICE_MODELS):
            yield some
            some, models, ended = [], set(), set()
        some.append(piece)
        models |= {alert.model for alert in piece.alerts}
        ended |= {alert.fingerprint for alert in piece.alerts if not alert.firing}
    if some:
        yield some


def _pieces(readings: Iterable[Judgement]) -> Iterator[Judgement]:
    for reading in readings:
        if reading.delivery_id is None and len(reading.alerts) > 1:
            for alert in sorted(reading.alerts, key=lambda a: (not a.firing, a.model)):
                yield Judgement([alert], truncated=reading.truncated)
            reading = replace(reading, alerts=())
        if reading.alerts or reading.changes or reading.words or reading.delivery_id is not None:
            yield replace(reading, unusable=())


def _store_slice(
    world: World, letter: Letter, pieces: Sequence[Judgement], take: Callable[[Connection, Sequence[Judgement]], Receipt]
) -> Receipt:
    """One transaction. What the database refuses is found by halves and put aside alone."""
    try:
        with world.transaction() as conn:
            return take(conn, pieces)
    except Unstorable as error:
        letter.refusals += 1
        if len(pieces) == 1 or letter.refusals > MAX_REFUSALS:
            return letter.refuse(pieces, str(error))
    half = len(pieces) // 2
    return _store_slice(world, letter, pieces[:half], take) + _store_slice(world, letter, pieces[half:], take)


def _take(conn: Connection, policy: Policy, letter: Letter, pieces: Sequence[Judgement]) -> Receipt:
    name, now = letter.form.source, letter.message.at
    who = name if letter.sender.secret else letter.sender.key  # what the secret proves is the sender's, whoever hands it on
    keys = [webhook_deliveries.key_of(name, p.delivery_id, who) if p.delivery_id else None for p in pieces]
    said = webhook_deliveries.begin_all(conn, name, filter(None, keys), now=now) if any(keys) else {}
    said |= _answered_by_number(conn, name, {key: piece for key, piece in zip(keys, pieces, strict=True) if key and key not in said})
    fresh, again, seen = list[tuple[str | None, Judgement]](), list[str](), set(said)
    for key, piece in zip(keys, pieces, strict=True):
        if key is not None and key in seen:
            again.append(key)
        else:
            fresh.append((key, piece))
            seen |= {key} if key else set()
    held: list[Unusable] = []

    def hold(alert: NormalisedAlert, why: str, is_new: bool) -> None:
        if is_new:
            held.append(Unusable(alert.part, why))

    receipts = store(conn, policy, letter, [piece for _, piece in fresh], hold=hold, now=now)
    letter.keep(conn, held)
    answered = {key: r.model_dump(mode="json", by_alias=True) for (key, _), r in zip(fresh, receipts, strict=True) if key is not None}
    webhook_deliveries.answered_all(conn, name, answered)
    repeats = [Receipt.model_validate((said | answered)[key]).model_copy(update={"duplicate": True}) for key in again]
    return sum([*receipts, *repeats], Receipt())


def _answered_by_number(conn: Connection, source: str, begun: Mapping[str, Judgement]) -> dict[str, Any]:
    """What was answered before senders were told apart, when the plain number was kept, for 14 days. The number alone proves nothing then:
    it may be another sender's. An alert that is not known here is taken in."""
    numbers = {key: clean(piece.delivery_id or "", 300) for key, piece in begun.items()}
    before = webhook_deliveries.answers(conn, source, numbers.values())
    found = {key: before[numbers[key]] for key in begun if numbers[key] in before}
    return {key: receipt for key, receipt in found.items() if all(_was_told(conn, source, alert) for alert in begun[key].alerts)}


def _was_told(conn: Connection, source: str, alert: NormalisedAlert) -> bool:
    told = known_alerts.of_key(conn, known_alerts.key_of(source, alert.fingerprint))
    return any(one.incident_id is not None or one.status == "firing" if alert.firing else one.status == "resolved" for one in told)


def store(conn: Connection, policy: Policy, letter: Letter, readings: Sequence[Judgement], *, hold: Hold, now: datetime) -> list[Receipt]:
    """What can be used of each reading; what must wait goes to `hold`."""
    name, held = letter.form.source, set[tuple[int, str]]()

    def note(alert: NormalisedAlert, why: str, is_new: bool) -> None:
        if is_new:
            held.add((id(alert.part), alert.fingerprint))
        hold(alert, why, is_new)

    alerts = [_kept(alert, reading, letter) for reading in readings for alert in reading.alerts]
    truncated = max((reading.truncated for reading in readings), default=0)
    batch = AlertBatch(name, alerts, truncated, letter.sender.key)
    homes = iter(homes_of(conn, policy, batch, standings=letter.standings, hold=note, now=now))
    receipts = []
    for reading in readings:
        ids = [next(homes) for _ in reading.alerts]
        for told in reading.changes:
            quiet = has_ledger(policy, told.model) and is_hint(told.change.detail)  # the next look at the registry says what became of it
            take_change(conn, told, source=name, now=now, quiet=quiet)
        ids += [_take_word(conn, letter, word, now=now) for word in reading.words]
        waiting = sum((id(alert.part), alert.fingerprint) in held for alert in reading.alerts)
        accepted, found = len(reading.alerts) - waiting, list(dict.fromkeys(filter(None, ids)))
        receipts.append(Receipt(accepted=accepted, quarantined=waiting, changes=len(reading.changes), incidents=found))
    return receipts


def _kept(alert: NormalisedAlert, reading: Judgement, letter: Letter) -> NormalisedAlert:
    part = next((part for part in (alert.part, reading.part) if part is not None), letter.message.payload)
    proven_as = letter.sender.proven_as(letter.form.name)
    more = {PROVEN_AS: proven_as, INCIDENT_TYPE: alert.incident_type, MESSAGE: as_it_came(part)}
    return replace(alert, body={**alert.body, **more})


def take_change(conn: Connection, told: ModelChange, *, source: str, now: datetime, quiet: bool = False) -> bool:
    """Keep a change and, unless `quiet`, note it on what is open about that model. False when it is known."""
    change = told.change
    if not recent_changes.put(conn, told.model, change, source=source, now=now):
        return False
    if quiet:
        return True
    for incident in incidents.find(conn, model=told.model, only_open=True):
        incidents.get(conn, incident.id, lock=True)
        words = f"{source} tells of a change: {change.kind.replace('_', ' ')} {change.ref} by {change.author} at {change.at.isoformat()}"
        timeline.append(conn, incident.id, "change", words, actor=source, at=now)
    return True


def _take_word(conn: Connection, letter: Letter, word: ExternalNote, *, now: datetime) -> str | None:
    """The incident that the word is about; None when nothing here is. A person's word counts where the format's own secret proves it: a
    token lets alerts in, and whoever holds one could answer pages in anybody's name."""
    source, named = letter.form.source, word.fingerprint or ""
    incident_id = word.incident_id or known_alerts.incident_of(conn, source=source, fingerprint=named, sender=letter.sender.key)
    try:
        incident = incidents.get(conn, incident_id, lock=True) if incident_id else None
    except NotFound:
        incident = None
    if incident is None or not letter.sender.may_see(incident.model):
        return None
    if word.kind == "acknowledged" and letter.sender.secret:
        # A copy of the message counts no second time, however much later: the incident may have been opened again since.
        if incident.status.is_open and not timeline.is_said(conn, incident.id, "acknowledged", word.key):
            acknowledge(conn, incident.id, by=word.by, role=Role.ONCALL_ML_ENGINEER, now=now, key=word.key)
    elif letter.sender.secret:
        note_once(conn, incident.id, source, clean(word.text, 1000), word.key, now=now)
    else:
        note_once(conn, incident.id, source, _unproven(letter, word), f"unproven:{word.key}"[:300], now=now)
    return incident.id


def _unproven(letter: Letter, word: ExternalNote) -> str:
    if word.kind != "acknowledged":
        return clean(f"Not proven, said by {letter.sender.name}: {word.text}", 1000)
    said = f"{letter.sender.name} says that {word.by} acknowledged it. That does not count, and pages go on"
    variable = webhook_secret_name(letter.form.source)
    return f"{said}: only a message that the secret of {letter.form.name} proves ends them (set {variable})"


def again(world: World, form: Format, kept: quarantine.Quarantined) -> Received:
    """A quarantined message, or part of one, as a message of its format that came when it did."""
    message = received(kept.body, kept.headers, world)
    return Received(form.whole(message.payload), message.headers, kept.received_at, message.policy, message.problem)


def replay(world: World, form: Format, number: int) -> Receipt:
    """Read a quarantined message again, after the policy names its model for example. Refused, with the reason, while it cannot be used.

    Stored in slices as a new message is. Cut off in between, the whole is replayed again: what was stored is known then. It counts as it
    was proven when it was received, and as unproven where that no longer holds: see `proofs.sender_of`.
    """
    kept = _unreplayed(world, number)
    with world.transaction() as conn:
        sender = proofs.sender_of(conn, kept, now=world.now(), window_s=world.policy.intake.replay_window_s)
    whole = again(world, form, kept)
    try:
        readings, standings = judged(world, form, whole, sender, fresh=True)
    except NotApproved as error:
        raise Refused(f"number {number} still cannot be used: {error}") from error
    letter = Letter(form, whole, kept.body, sender, standings)
    held: dict[tuple[int, str], Unusable] = {}

    def wait(alert: NormalisedAlert, why: str, _: bool) -> None:
        held[id(alert.part), alert.fingerprint] = Unusable(alert.part, why)

    def take(conn: Connection, pieces: Sequence[Judgement]) -> Receipt:
        return sum(store(conn, world.policy, letter, pieces, hold=wait, now=world.now()), Receipt())

    total, parts = Receipt(), 0
    for some in slices(readings):
        total += _store_slice(world, letter, some, take)
        parts += len(some)
    unusable = [one for reading in readings for one in reading.unusable]
    wrong = [*unusable, *held.values(), *letter.refused]
    if wrong and len(wrong) >= parts + len(unusable):
        raise Refused(f"number {number} still cannot be used: {clean(wrong[0].reason, 500)}")
    total = total.model_copy(update={"quarantined": len(wrong)})
    with world.transaction() as conn:
        _demand_unreplayed(quarantine.get(conn, number, lock=True))
        quarantine.mark_replayed(conn, number, total.model_dump(mode="json", by_alias=True), now=world.now())
        letter.keep(conn, wrong)  # the part of many that must wait on
    return total


def discard(world: World, number: int, *, by: str, reason: str) -> quarantine.Listed:
    """A person needs it no more. Refused where something became of it already."""
    with world.transaction() as conn:
        _demand_unreplayed(quarantine.get(conn, number, lock=True))
        quarantine.discard(conn, number, by=by, reason=reason, now=world.now())
        kept = quarantine.get(conn, number)
    log.info("number %d of the quarantine (%s, sent by %s) was discarded by %s: %s", number, kept.source, kept.sender, by, reason)
    return kept


def _unreplayed(world: World, number: int) -> quarantine.Quarantined:
    with world.transaction() as conn:
        kept = quarantine.get(conn, number)
    _demand_unreplayed(kept)
    return kept


def _demand_unreplayed(kept: quarantine.Quarantined) -> None:
    if gone := kept.discarded:
        raise Refused(f"number {kept.id} was discarded by {gone.by} at {gone.at:%Y-%m-%d %H:%M} UTC: {gone.reason}")
    if kept.replayed_at is not None:
        raise Refused(f"number {kept.id} was replayed at {kept.replayed_at:%Y-%m-%d %H:%M} UTC")


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
