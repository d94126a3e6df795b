"""What changed near a model: by the model platform's own record, and by what other systems told the gateway."""

from __future__ import annotations

from datetime import datetime, timedelta

from mlrunbook.domain.observed import Change
from mlrunbook.response.world import World
from mlrunbook.store import recent_changes

SAME = timedelta(hours=1)  # a registry and the platform tell of one deployment at their own moments


def of_model(world: World, model: str, *, since: datetime) -> list[Change]:
    """Newest first. What both tell of (same kind and ref within the hour) is the platform's. Raises what the platform raises."""
    own = list(world.platform.changes(model, since=since))
    with world.transaction() as conn:
        told = recent_changes.of_model(conn, model, since=since)
    new = [t for t in told if not any((o.kind, o.ref) == (t.kind, t.ref) and abs(o.at - t.at) <= SAME for o in own)]
    return sorted([*own, *new], key=lambda change: change.at, reverse=True)
