"""One run of the runbook on one incident: the world, and the lease that lets it write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection

from mlrunbook.domain.incident import Incident
from mlrunbook.domain.policy.modes import Mode
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.records import Recorded
from mlrunbook.response.carried_mode import mode_of
from mlrunbook.response.world import World
from mlrunbook.store import incidents, leases, records, timeline

ACTOR = "mlrunbook"
R = TypeVar("R", bound=Recorded)


@dataclass(frozen=True)
class Run:
    world: World
    lease: leases.Lease

    @property
    def incident_id(self) -> str:
        return self.lease.incident_id

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction of a run that still holds its lease; else Fenced, and nothing is written."""
        with self.world.transaction() as conn:
            leases.check(conn, self.lease)
            yield conn

    def incident(self) -> Incident:
        with self.world.transaction() as conn:
            return incidents.get(conn, self.incident_id)

    @property
    def policy(self) -> Policy:
        """As it holds for the incident's model."""
        return self.world.policy.for_model(self.incident().model)

    @property
    def acts(self) -> bool:
        """Whether what policy lets happen by itself may happen; else a person decides it."""
        with self.world.transaction() as conn:
            incident = incidents.get(conn, self.incident_id)
            return mode_of(conn, self.world.policy, incident.id, incident.model) is Mode.ACT

    def recall(self, kind: type[R], *names: object) -> R | None:
        """What an earlier step of this or another run has left."""
        with self.world.transaction() as conn:
            return records.recall(conn, self.incident_id, kind, *names)

    def keep(self, conn: Connection, record: R, *names: object) -> R:
        """Leave it for later steps unless one stands; returns what stands."""
        return records.keep(conn, self.incident_id, record, *names, now=self.world.now())

    def recorded(self, step: str) -> dict[str, Any] | None:
        with self.world.transaction() as conn:
            return records.get(conn, self.incident_id, step)

    def note(self, conn: Connection, kind: str, text: str, data: Mapping[str, Any] | None = None) -> None:
        timeline.append(conn, self.incident_id, kind, text, actor=ACTOR, at=self.world.now(), data=data)
