"""Alerts muted for a while: stored and counted, and looked at again when the silence ends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection

from mlrunbook.domain.detection.alerts import NormalisedAlert
from mlrunbook.domain.detection.silences import Quiet, quiet
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.response.lifecycle.known_alerts import KnownAlerts, Recalled
from mlrunbook.store import alerts, outbox
from mlrunbook.store.alerts import Identity

AT_ONCE = 1_000
STRAGGLERS = timedelta(minutes=2)  # no transaction of an alert takes so long
_DETAILS = "alert"  # in the body of a silenced one: what a normaliser read out of it, for the end of the silence
_KEPT = ("name", "model", "model_version", "level", "incident_type", "summary")


def silence(conn: Connection, policy: Policy, fresh: Iterable[Recalled], known: KnownAlerts, *, now: datetime) -> set[Identity]:
    """Keep those quiet that policy says so of: which. They belong to no incident; what does is never silenced."""
    silenced, ends = set(), set()
    for one in fresh:
        held = _quiet(policy, one.alert, now)
        if held is None:
            continue
        details = {k: getattr(one.alert, k) for k in _KEPT}
        body = dict(one.alert.body) | {"model": one.alert.model, "silenced": held.sentence, "until": held.until.isoformat()}
        known.tell(replace(one, alert=replace(one.alert, body=body | {_DETAILS: details})), None)
        silenced.add(one.identity)
        ends.add(held.until)
    for until in sorted(ends):
        _wake_at(conn, until, now=now)
    return silenced


class Heard(NamedTuple):
    """What still fires after its silence, of one sender."""

    source: str
    sender: str
    alerts: list[NormalisedAlert]


def models(conn: Connection) -> list[str]:
    """Those with a silenced alert that still fires and belongs to no incident."""
    return alerts.models_silenced(conn)


def over(conn: Connection, policy: Policy, model: str, *, after: int, now: datetime) -> tuple[list[Heard], int | None]:
    """A page of the model's alerts whose silence is over, by sender, and where the next page begins. Another silence that holds by now is
    waited for."""
    rows = alerts.silenced_and_firing(conn, model, after=after, limit=AT_ONCE)
    heard: dict[tuple[str, str], list[NormalisedAlert]] = {}
    longer = set()
    for row in rows:
        told = {k: row["body"][_DETAILS][k] for k in _KEPT}
        alert = NormalisedAlert(**told, fingerprint=row["fingerprint"], firing=True, starts_at=row["starts_at"], body=row["body"])
        if held := _quiet(policy, alert, now):
            longer.add(held.until)
        else:
            heard.setdefault((row["source"], row["sender"]), []).append(alert)
    for until in sorted(longer):
        _wake_at(conn, until, now=now)
    found = [Heard(source, sender, of_sender) for (source, sender), of_sender in heard.items()]
    return found, rows[-1]["id"] if len(rows) == AT_ONCE else None


def _quiet(policy: Policy, alert: NormalisedAlert, now: datetime) -> Quiet | None:
    return quiet(alert.model, alert.name, alert.type(policy), now, policy.silences, policy.maintenance)


def _wake_at(conn: Connection, until: datetime, *, now: datetime) -> None:
    """One timer for all that is quiet until then, and one for what was being stored just then."""
    for at in (until, until + STRAGGLERS):
        key, told = f"silence:{until.isoformat()}:{at.isoformat()}", {"until": until.isoformat()}
        if not outbox.put(conn, outbox.SILENCE_ENDS, key, told, now=now, at=at) and outbox.is_delivered(conn, key):
            outbox.put(conn, outbox.SILENCE_ENDS, f"{key}:{now.isoformat()}", told, now=now, at=at)  # the clock was set back: it ends again
