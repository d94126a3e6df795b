"""Alerts muted for a while: stored and counted, and looked at again when the silence ends."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from mlrunbook.domain.detection.alerts import NormalisedAlert
from mlrunbook.domain.detection.silences import quiet
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.store import alerts, outbox
from mlrunbook.store.alerts import Identity

SILENCE_ENDS = "silence_ends"
_KEPT = ("fingerprint", "name", "model", "model_version", "level", "incident_type", "summary")


def silence(conn: Connection, policy: Policy, source: str, alert: NormalisedAlert, *, now: datetime) -> bool:
    """Keep it quiet where policy says so; False where it is heard."""
    held = quiet(alert.model, alert.name, alert.type(policy), now, policy.silences, policy.maintenance)
    if held is None:
        return False
    body = dict(alert.body) | {"model": alert.model, "silenced": held.sentence, "until": held.until.isoformat()}
    alerts.record(conn, Identity(source, alert.fingerprint, alert.starts_at), status="firing", body=body, now=now)
    key = f"silence:{source}:{alert.fingerprint}:{alert.starts_at.isoformat()}:{held.until.isoformat()}"
    kept = {k: getattr(alert, k) for k in _KEPT} | {"source": source, "starts_at": alert.starts_at.isoformat(), "body": dict(alert.body)}
    outbox.put(conn, SILENCE_ENDS, key, kept, now=now, at=held.until)
    return True


def still_firing(conn: Connection, item: outbox.Item) -> tuple[str, NormalisedAlert] | None:
    """The alert whose silence is over, with its source; None where it has ended, or belongs to an incident by now."""
    told, source = dict(item.payload), str(item.payload["source"])
    alert = NormalisedAlert(
        **{k: told[k] for k in _KEPT}, firing=True, starts_at=datetime.fromisoformat(told["starts_at"]), body=told["body"]
    )
    row = alerts.find(conn, Identity(source, alert.fingerprint, alert.starts_at))
    return (source, alert) if row and row["status"] == "firing" and row["incident_id"] is None else None
