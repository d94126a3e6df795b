"""Incidents that between them make every kind of change: how the world is broken, who says so, and what people do about it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.incident import IncidentType, Severity, Subtype
from mlrunbook.gateway.webhooks.ingest import ingest, received
from mlrunbook.gateway.webhooks.registry import FORMATS
from mlrunbook.response.world import World
from mlrunbook.store import incidents, leases, plans
from tests.fakes import MODEL, FileWorld
from tests.response import people, test_by_severity, test_paths_b_and_c
from tests.response.containment import test_emergency
from tests.response.resolution import test_serving_recovery

Send = Callable[[World], str]
FLEET = Identity("", "the fleet", None, frozenset({Scope.ALERTS}))


def alert(model: str, fingerprint: str, *, severity: str = "warning", started_at: str = "2026-03-29T00:25:00Z") -> bytes:
    """One message of Alertmanager's."""
    labels = {"alertname": "ModelF1Drop", "severity": severity, "model": model}
    one = {"status": "firing", "labels": labels, "annotations": {"summary": "F1 fell"}, "startsAt": started_at, "fingerprint": fingerprint}
    return json.dumps({"version": "4", "status": "firing", "groupKey": "{}", "truncatedAlerts": 0, "alerts": [one]}).encode()


def by_alert(world: World) -> str:
    """What the door does with a message once it knows the sender."""
    body = alert(MODEL, "f1")
    return ingest(world, FORMATS["alertmanager"], received(body, {}, world), body, sender=FLEET).incidents[0]


def breach(world: World) -> str:
    said = {"by_alert": False, "description": "Names were sent to a stranger", "subtype": Subtype.DATA_LEAKAGE}
    return people.report(world, Severity.HIGH, IncidentType.SECURITY, **said)  # type: ignore[arg-type]


def _infrastructure(world: World) -> str:
    return people.report(world, Severity.CRITICAL, IncidentType.INFRASTRUCTURE, description="the model server is down")


def _nothing(world: World, incident_id: str) -> None:
    return


def _stop_serving(world: World, incident_id: str) -> None:
    test_emergency.order(world, incident_id)


@dataclass(frozen=True, eq=False)
class Story:
    """`effects`: how often each kind of change must have been made at the end, by its first word."""

    name: str
    effects: dict[str, int]
    prepare: Callable[[FileWorld], object] = lambda world: None
    send: Send = by_alert
    opened: Callable[[World, str], None] = _nothing
    bad_rollout: bool = False
    by_hand: bool = False  # people fix it themselves

    def people(self, world: World, incident_id: str, repair: Callable[[], object] | None) -> None:
        """Whoever is asked decides. Whoever is called fixes it: in this story by hand, or where a part was away and `repair` is given."""
        with world.transaction() as conn:
            lease, incident = leases.get(conn, incident_id), incidents.get(conn, incident_id)
        if not incident.status.is_open:
            return
        if lease.state == "waiting":
            self._decide(world, incident_id)
        elif lease.state == "free" and self.by_hand:
            people.resolve(world, incident_id, "revoked the stolen token")
        elif lease.state == "free" and repair:
            repair()
            people.resolve(world, incident_id, "put the last good state back by hand")

    def _decide(self, world: World, incident_id: str) -> None:
        who = {
            PlanKind.ISOLATION: ("Security", "security_officer"),
            PlanKind.RESOLUTION: ("the lead", "ml_team_lead"),
        }
        for kind, (by, role) in who.items():
            with world.transaction() as conn:
                asked = plans.current(conn, incident_id, kind)
                said = asked is not None and plans.approvals_of(conn, incident_id, asked.digest)
            if asked is not None and not said:
                people.say(world, incident_id, "approved", kind, by=by, role=role)


def _breach_prepared(world: FileWorld) -> None:
    world.set(bad_versions={})


CONTAINED = {"config": 4}  # two switches there and back
STORIES = (
    Story("bad-release", CONTAINED | {"rollback": 1}),
    Story("all-high-risk", {"route": 2, "config": 2, "flag": 1, "rollback": 1}, test_by_severity.all_high_risk),
    Story("stopped-by-hand", CONTAINED | {"rollback": 1, "scale": 2}, opened=_stop_serving),
    Story("threshold-slip", {"config": 6, "restart": 2}, FileWorld.slip),
    Story("stale-features", CONTAINED | {"materialize": 1, "resume": 1}, test_paths_b_and_c.stale_features),
    Story("concept-drift", CONTAINED | {"train": 1, "register": 1, "stage": 1, "promote": 1}, test_paths_b_and_c.concept_drift),
    Story("server-down", {"restart": 1}, test_serving_recovery.hung, _infrastructure),
    Story("bad-rollout", {"undo": 1}, test_serving_recovery.hung, _infrastructure, bad_rollout=True),
    Story("breach", {"isolate": 2}, _breach_prepared, breach, by_hand=True),
)
