"""What was only observed, against what happened: read for the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from mlrunbook.domain.incident import Incident
from mlrunbook.domain.observed import Change
from mlrunbook.domain.resolution.observation import ObservationOver, Observed, WouldContain, WouldResolve
from mlrunbook.response.carried_mode import is_taken_up
from mlrunbook.response.measurement import recent_changes
from mlrunbook.response.tried import or_none
from mlrunbook.response.world import World
from mlrunbook.store import incidents, records

MOST = 500


def observed(world: World, *, model: str | None, since: datetime | None, may_see: Callable[[str], bool]) -> list[Observed]:
    """The newest first. What changed near a model is asked of its platform and its runtime; one that does not answer shows no change."""
    with world.transaction() as conn:
        found = [
            one for one in incidents.find(conn, model=model, limit=MOST) if may_see(one.model) and (not since or one.detected_at >= since)
        ]
        contain = records.of_incidents(conn, WouldContain, [one.id for one in found])
        resolve = records.of_incidents(conn, WouldResolve, [one.id for one in found])
        over = records.of_incidents(conn, ObservationOver, [one.id for one in found])
        taken_up = {one.id for one in found if one.id in contain and is_taken_up(conn, one.id)}
    changes = _changes(world, [one for one in found if one.id in contain])
    return [
        Observed(
            one.id,
            one.model,
            one.severity,
            one.detected_at,
            contain[one.id],
            resolve.get(one.id),
            over.get(one.id),
            is_open=one.status.is_open,
            is_taken_up=one.id in taken_up,
            changes=changes[one.model],
        )
        for one in found
        if one.id in contain
    ]


def _changes(world: World, found: Sequence[Incident]) -> dict[str, list[Change]]:
    """By model, each asked once, however many incidents it had."""
    first: dict[str, datetime] = {}
    for one in found:
        first[one.model] = min(one.detected_at, first.get(one.model, one.detected_at))
    return {model: _near(world, model, since) for model, since in first.items()}


def _near(world: World, model: str, since: datetime) -> list[Change]:
    told = or_none("the change history", lambda: recent_changes.of_model(world, model, since=since)) or []

    def rollouts() -> list[Change]:
        return [
            Change("infrastructure", f"rollout revision {r.number}", r.cause or "", r.at)
            for r in world.runtime.revisions(model)
            if r.at is not None and r.at >= since
        ]

    return [*told, *(or_none("the rollout history", rollouts) or [])]
