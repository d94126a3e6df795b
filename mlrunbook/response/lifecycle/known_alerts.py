"""What the store knows of the alerts of one batch: read at once, kept up while the batch is taken in, written at once.

A batch may hold thousands: what it costs is a handful of statements, not some for each alert.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
    family_of: Callable[[NormalisedAlert], str]
    families: Sequence[str]
    _stored: dict[tuple[str, datetime], Stored] = field(default_factory=dict)
    _over: set[str] = field(default_factory=set)
    _incidents: dict[str, Incident] = field(default_factory=dict)
    _told: dict[tuple[str, datetime], Told] = field(default_factory=dict)
    _names: dict[tuple[str, datetime], list[Identity]] = field(default_factory=dict)

    def going_on(self, conn: Connection, told: Sequence[NormalisedAlert]) -> list[NormalisedAlert]:
        """Each with its start: one whose sender names none that stays the same goes on with what still fires, and an end belongs to what
        fires of that name, whatever start it carries (Grafana writes the end there). Then all are known here."""
        self._look_up(conn, told)
        searching = [a for a in told if not (a.start_is_stated and a.firing) and not self._stored_as(a)]
        keys = {i.key for a in searching for fingerprint in self._fingerprints(a) for i in self._named(fingerprint, a)}
        since = alerts.firing_since(conn, keys) if keys else {}
        updated = {identity.key for alert in told if alert.is_update for identity in self._identities(alert)}
        self._over = alerts.ended(conn, updated) if updated else set()
        moved = [self._started(a, since) if any(a is one for one in searching) else a for a in told] if since else list(told)
        self._look_up(conn, [alert for alert, before in zip(moved, told, strict=True) if alert is not before])
        return moved

    def _stored_as(self, alert: NormalisedAlert) -> list[Identity]:
        return [identity for identity in self._identities(alert) if identity.at in self._stored]

    def _identities(self, alert: NormalisedAlert) -> list[Identity]:
        return [identity for fingerprint in self._fingerprints(alert) for identity in self._named(fingerprint, alert)]

    def _started(self, alert: NormalisedAlert, since: Mapping[str, datetime]) -> NormalisedAlert:
        starts_at = next((since[identity.key] for identity in self._identities(alert) if identity.key in since), alert.starts_at)
        return replace(alert, starts_at=starts_at) if starts_at != alert.starts_at else alert

    def is_over(self, alert: NormalisedAlert) -> bool:
        """An update of what has ended, such as a note on its cause: it begins nothing."""
        return alert.is_update and any(identity.key in self._over for identity in self._identities(alert))

    def recall(self, alert: NormalisedAlert) -> Recalled:
        """What fires. A sender that gives alerts on two models, or of two kinds of failure, one fingerprint must not hide the second; and
        one that fires again after its end is no repeat."""
        found = None
        for fingerprint in self._fingerprints(alert):
            found = self._found(fingerprint, alert)
            if found.incident is None or self._is_about(found.incident, alert):
                break
        assert found is not None
        again = found.stored is not None and found.stored.status == "resolved"
        mine = found.incident is not None and self._is_about(found.incident, alert) and not again
        return found if mine or found.incident is None else replace(found, incident=None)

    def ended(self, alert: NormalisedAlert) -> list[Recalled]:
        """All that ends with it: what is about the same, else what has its name at all."""
        found = [self._found(fingerprint, alert) for fingerprint in self._fingerprints(alert)]
        known = [one for one in found if one.stored is not None]
        mine = [one for one in known if one.incident is not None and (not alert.model or one.incident.model == alert.model)]
        return mine or known[:1] or found[:1]

    def _is_about(self, incident: Incident, alert: NormalisedAlert) -> bool:
        return incident.model == alert.model and incident.family == self.family_of(alert)

    def tell(self, recalled: Recalled, home: Incident | None, *, end_noted: bool = False) -> None:
        """To be stored at the end."""
        alert, identity = recalled.alert, recalled.identity
        status, earlier = "firing" if alert.firing else "resolved", self._told.get(identity.at)
        if home is not None:
            self._incidents[home.id] = home
        before = self._stored.get(identity.at)
        incident_id = home.id if home else before.incident_id if before else None
        noted = end_noted or (before is not None and before.end_noted)
        self._stored[identity.at] = Stored(status, incident_id, noted, alert.level)
        body, times = (earlier.body, earlier.times + 1) if earlier else (alert.body, 1)
        self._told[identity.at] = Told(identity, status, body, incident_id, times, noted)

    def write(self, conn: Connection, *, now: datetime) -> None:
        alerts.record_all(conn, list(self._told.values()), now=now)
        self._told.clear()

    def _look_up(self, conn: Connection, told: Iterable[NormalisedAlert]) -> None:
        named = [identity for alert in told for fingerprint in self._fingerprints(alert) for identity in self._named(fingerprint, alert)]
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

    def _fingerprints(self, alert: NormalisedAlert) -> tuple[str, ...]:
        """What it may be stored under: its own, and that with what told it from another of the same name. An end is of every kind."""
        families = [self.family_of(alert)] if alert.firing else self.families
        mine = f"{alert.fingerprint}@{alert.model}"
        return alert.fingerprint, mine, *(f"{mine}@{family}" for family in families)
