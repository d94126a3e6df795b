"""Alerts muted for a while: stored and counted, and looked at again when the silence ends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from mlrunbook.domain.detection.alerts import NormalisedAlert
from mlrunbook.domain.detection.silences import quiet
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.response.lifecycle.known_alerts import KnownAlerts, Recalled
from mlrunbook.store import alerts, outbox
from mlrunbook.store.alerts import Identity

SILENCE_ENDS = "silence_ends"
_KEPT = ("fingerprint", "name", "model", "model_version", "level", "incident_type", "summary")


def silence(conn: Connection, policy: Policy, fresh: Iterable[Recalled], known: KnownAlerts, *, now: datetime) -> set[Identity]:
    """Keep those quiet that policy says so of: which. They belong to no incident; what does is never silenced."""
    silenced, ends = set(), []
    for one in fresh:
        alert, identity = one.alert, one.identity
        held = quiet(alert.model, alert.name, alert.type(policy), now, policy.silences, policy.maintenance)
        if held is None:
            continue
        body = dict(alert.body) | {"model": alert.model, "silenced": held.sentence, "until": held.until.isoformat()}
        known.tell(replace(one, alert=replace(alert, body=body)), None)
        silenced.add(identity)
        kept = {k: getattr(alert, k) for k in _KEPT} | {"source": identity.source, "sender": identity.sender, "body": dict(alert.body)}
        key = f"silence:{identity.key}:{alert.starts_at.isoformat()}:{held.until.isoformat()}"
        ends.append(outbox.Due(key, kept | {"starts_at": alert.starts_at.isoformat()}, held.until))
    outbox.put_all(conn, SILENCE_ENDS, ends, now=now)
    return silenced


def still_firing(conn: Connection, item: outbox.Item) -> tuple[str, str, NormalisedAlert] | None:
    """The alert whose silence is over, with its source and sender; None where it has ended, or belongs to an incident by now."""
    told, source, sender = dict(item.payload), str(item.payload["source"]), str(item.payload.get("sender", ""))
    alert = NormalisedAlert(
        **{k: told[k] for k in _KEPT}, firing=True, starts_at=datetime.fromisoformat(told["starts_at"]), body=told["body"]
    )
    row = alerts.find(conn, Identity(source, alert.fingerprint, alert.starts_at, sender))
    return (source, sender, alert) if row and row.status == "firing" and row.incident_id is None else None
