"""How a message is read and what it would do, without doing it: for `mlrunbook webhook explain`, and for a delivery that is only a test."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.domain.detection.alerts import READ, NormalisedAlert
from mlrunbook.domain.detection.verdicts import Outcome, Verdict, verdict
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.text import clean
from mlrunbook.gateway.webhooks import proofs
from mlrunbook.gateway.webhooks.ingest import Receipt, Tried, again, judged
from mlrunbook.gateway.webhooks.judging import Judgement, ModelChange
from mlrunbook.gateway.webhooks.parsing import ExternalNote, Format, Reading, Received, as_it_came
from mlrunbook.response.world import World
from mlrunbook.store.quarantine import Quarantined

log = logging.getLogger(__name__)

TEST_HEADER = "x-mlrunbook-test"  # the time of the test, in seconds since 1970
MOST_TOLD = 20  # parts of a test: it is one message of ours
WHOLE, MAX_TITLE = "the whole message", 70


@dataclass(frozen=True)
class Said:
    """What a step read, and the sentence that says what decided it."""

    value: str
    because: str


@dataclass(frozen=True)
class Explained:
    """One alert, change or word of a message, or a part of it that is none: by the names of the steps, how it was read."""

    verdict: Verdict
    title: str = ""
    read: Mapping[str, Said] = field(default_factory=dict)


def readings_of(form: Format, message: Received) -> list[Reading]:
    """Also of a part as the quarantine keeps it, which is no whole message of its format."""
    read = form.read(message)
    if any(one.alerts or one.changes or one.words or one.passed_over for one in read) or message.payload is None:
        return read
    again = form.read(replace(message, payload=form.whole(message.payload)))
    return again if any(one.alerts for one in again) else read


def explained(judgements: Sequence[Judgement], policy: Policy, *, now: datetime) -> Iterator[Explained]:
    """Each part in the order of the message, those that cannot be used last."""
    for one in judgements:
        yield from (_alert(alert, policy, now) for alert in one.alerts)
        yield from (_change(told) for told in one.changes)
        yield from (_word(word) for word in one.words)
        for passed in one.passed_over:
            yield Explained(Verdict(Outcome.IGNORE, f"opens and ends nothing: {passed.because}"), passed.title or WHOLE)
    for one in judgements:
        for unusable in one.unusable:
            title = clean(as_it_came(unusable.part), MAX_TITLE) if unusable.part is not None else WHOLE
            yield Explained(Verdict(Outcome.QUARANTINE, f"waits in the quarantine: {unusable.reason}"), title)


def _alert(alert: NormalisedAlert, policy: Policy, now: datetime) -> Explained:
    because = alert.body[READ]
    values = {
        "model": alert.model or "no model",
        "type": alert.type(policy).value.replace("_", " "),
        "level": alert.level or "none",
        "state": "firing" if alert.firing else "resolved",
        "identity": alert.fingerprint,
    }
    return Explained(verdict(alert, policy, now=now), alert.name, {step: Said(value, because[step]) for step, value in values.items()})


def _change(told: ModelChange) -> Explained:
    change, kind = told.change, told.change.kind.replace("_", " ")
    happens = f"is recorded as a change of {told.model} ({kind} {change.ref} by {change.author}); opens nothing"
    read = {"model": Said(told.model, told.because), "kind": Said(kind, told.kind_because)}
    return Explained(Verdict(Outcome.CHANGE, happens), f"{kind} {change.ref}", read)


def _word(word: ExternalNote) -> Explained:
    about = word.incident_id or "the incident that this alert belongs to"
    if word.kind == "acknowledged":
        said = f"acknowledges {about} for {word.by}, where the secret of the format proves the sender; else it is only noted"
        return Explained(Verdict(Outcome.NOTE, said), "acknowledgement")
    return Explained(Verdict(Outcome.NOTE, f"is noted on the timeline of {about}: {word.text}"), "note")


def of_quarantined(world: World, form: Format, kept: Quarantined) -> list[Explained]:
    """How a replay would read the message now. Nothing is stored. NotApproved where its sender may not say any of it."""
    with world.transaction() as conn:
        sender = proofs.sender_of(conn, kept, now=world.now(), window_s=world.policy.intake.replay_window_s)
    readings, _ = judged(world, form, again(world, form, kept), sender, fresh=True)
    return list(explained(readings, world.policy, now=kept.received_at))


def is_test(headers: Mapping[str, str], now: datetime, window_s: float) -> bool:
    """Whether the sender says that this is a test, and said so just now. A sender that has the header set for good, by mistake, is
    heard."""
    with suppress(ValueError):
        return abs(now.timestamp() - float(headers.get(TEST_HEADER, ""))) <= window_s
    return False


def try_out(world: World, form: Format, message: Received, *, sender: Identity) -> Receipt:
    """What would become of the message. Nothing is stored: no alert, no change, no delivery's number, no part in the quarantine.
    Only a sender who may read everything learns why."""
    readings, _ = judged(world, form, message, sender)
    found = [one.verdict for one in explained(readings, world.policy, now=message.at)]
    log.warning("only a test: nothing was stored of the %d part(s) that %s sent as %s", len(found), sender.name, form.source)
    may_read = Scope.READ in sender.scopes and not sender.limits.models
    told = [Tried(outcome=one.outcome, happens=one.happens if may_read else None) for one in found[:MOST_TOLD]]
    return Receipt(test=told)
