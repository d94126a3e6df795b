"""What changed near a model: by the model platform's own record, and by what other systems told the gateway."""

from __future__ import annotations

from datetime import datetime, timedelta

from mlrunbook.domain.observed import Change
from mlrunbook.response.world import World
from mlrunbook.store import recent_changes

BOUNDS = frozenset({"deployment", "rollback", "config", "feature_store"})
SAME = timedelta(hours=1)  # a registry and the platform tell of one deployment at their own moments


def that_bound_windows(world: World, model: str, *, since: datetime) -> list[Change]:
    """Those that what is measured begins or ends at, newest first: of the platform's record alone. Anybody who may report could tell of a
    change a minute, and nothing would ever be measured. Raises what the platform raises."""
    return [change for change in world.platform.changes(model, since=since) if change.kind in BOUNDS]


def of_model(world: World, model: str, *, since: datetime) -> list[Change]:
    """Newest first. What both tell of (same kind and ref within the hour) is the platform's. Raises what the platform raises."""
    own = list(world.platform.changes(model, since=since))
    with world.transaction() as conn:
        told = recent_changes.of_model(conn, model, since=since)
    new = [t for t in told if not any((o.kind, o.ref) == (t.kind, t.ref) and abs(o.at - t.at) <= SAME for o in own)]
    return sorted([*own, *new], key=lambda change: change.at, reverse=True)
