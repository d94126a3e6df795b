"""What the store knows of the alerts of one batch: read at once, kept up while the batch is taken in, written at once.

A batch may hold thousands: what it costs is a handful of statements, not some for each alert.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import Connection

from mlrunbook.domain.detection.alerts import NormalisedAlert
from mlrunbook.domain.incident import Incident
from mlrunbook.store import alerts, incidents
from mlrunbook.store.alerts import Identity, Stored, Told


@dataclass(frozen=True)
class Recalled:
    """An alert with the identity it is stored under, and the incident it belongs to, if it came before."""

    alert: NormalisedAlert
    identity: Identity
    stored: Stored | None
    incident: Incident | None


@dataclass
class KnownAlerts:
    """Of one sender. What was stored before senders were told apart is any sender's, until it has ended."""

    source: str
    sender: str
    _stored: dict[tuple[str, datetime], Stored] = field(default_factory=dict)
    _incidents: dict[str, Incident] = field(default_factory=dict)
    _told: dict[tuple[str, datetime], Told] = field(default_factory=dict)
    _names: dict[tuple[str, datetime], list[Identity]] = field(default_factory=dict)

    def going_on(self, conn: Connection, told: Sequence[NormalisedAlert]) -> list[NormalisedAlert]:
        """Each with its start: one whose sender names none that stays the same goes on with what still fires. Then all are known here."""
        self._look_up(conn, told)
        open_ended = [a for a in told if not a.start_is_stated and not any(i.at in self._stored for i in self._named(a.fingerprint, a))]
        keys = {identity.key for alert in open_ended for identity in self._named(alert.fingerprint, alert)}
        since = alerts.firing_since(conn, keys) if keys else {}
        starts = {a.fingerprint: next((since[i.key] for i in self._named(a.fingerprint, a) if i.key in since), None) for a in open_ended}
        moved = [replace(a, starts_at=starts[a.fingerprint] or a.starts_at) if a.fingerprint in starts else a for a in told]
        self._look_up(conn, [alert for alert, before in zip(moved, told, strict=True) if alert is not before])
        return moved

    def recall(self, alert: NormalisedAlert) -> Recalled:
        """A sender that gives alerts on two models one fingerprint must not hide the second."""
        found = None
        for fingerprint in _fingerprints(alert):
            found = self._found(fingerprint, alert)
            if found.incident is None or found.incident.model == alert.model:
                return found
        assert found is not None
        return replace(found, incident=None)

    def tell(self, recalled: Recalled, home: Incident | None, *, end_noted: bool = False) -> None:
        """To be stored at the end."""
        alert, identity = recalled.alert, recalled.identity
        status, earlier = "firing" if alert.firing else "resolved", self._told.get(identity.at)
        if home is not None:
            self._incidents[home.id] = home
        before = self._stored.get(identity.at)
        incident_id = home.id if home else before.incident_id if before else None
        noted = end_noted or (before is not None and before.end_noted)
        self._stored[identity.at] = Stored(status, incident_id, noted)
        body, times = (earlier.body, earlier.times + 1) if earlier else (alert.body, 1)
        self._told[identity.at] = Told(identity, status, body, incident_id, times, noted)

    def write(self, conn: Connection, *, now: datetime) -> None:
        alerts.record_all(conn, list(self._told.values()), now=now)
        self._told.clear()

    def _look_up(self, conn: Connection, told: Iterable[NormalisedAlert]) -> None:
        named = [identity for alert in told for fingerprint in _fingerprints(alert) for identity in self._named(fingerprint, alert)]
        if not named:
            return
        found = alerts.known(conn, named)
        self._stored |= found
        ids = {row.incident_id for row in found.values() if row.incident_id} - self._incidents.keys()
        self._incidents |= incidents.of_ids(conn, ids) if ids else {}

    def _found(self, fingerprint: str, alert: NormalisedAlert) -> Recalled:
        own, *older = self._named(fingerprint, alert)
        identity = next((i for i in (own, *older) if i.at in self._stored), own)
        stored = self._stored.get(identity.at)
        incident = self._incidents[stored.incident_id] if stored and stored.incident_id else None
        return Recalled(alert, identity, stored, incident)

    def _named(self, fingerprint: str, alert: NormalisedAlert) -> list[Identity]:
        """Its own first; then that of a time when senders were not told apart."""
        named = self._names.get((fingerprint, alert.starts_at))
        if named is None:
            named = [Identity(self.source, fingerprint, alert.starts_at, sender) for sender in dict.fromkeys((self.sender, ""))]
            self._names[fingerprint, alert.starts_at] = named
        return named


def _fingerprints(alert: NormalisedAlert) -> tuple[str, str]:
    return alert.fingerprint, f"{alert.fingerprint}@{alert.model}"
