"""What changed near a model: by the model platform's own record, and by what other systems told the gateway."""

from __future__ import annotations

from datetime import datetime, timedelta

from mlrunbook.domain.action_state import ActionState
from mlrunbook.domain.actions import Configure, Materialize, Restart
from mlrunbook.domain.observed import Change
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.response.measurement.registry_ledger import is_hint
from mlrunbook.response.world import World
from mlrunbook.store import journal, recent_changes

BOUNDS = frozenset({"deployment", "rollback", "config", "feature_store"})
A_CHANGE_TAKES = timedelta(days=1)  # at most, from its intent in the journal to its end
SAME = timedelta(hours=1)  # a registry and the platform tell of one deployment at their own moments


def that_bound_windows(world: World, model: str, *, since: datetime) -> list[Change]:
    """Those that what is measured begins or ends at, newest first: of the platform's record and of our own journal. Not what others tell:
    anybody who may report could tell of a change a minute, and nothing would ever be measured. Raises what the platform raises."""
    recorded = [change for change in world.platform.changes(model, since=since) if change.kind in BOUNDS]
    return sorted([*recorded, *_our_own(world, model, since)], key=lambda change: change.at, reverse=True)


def _our_own(world: World, model: str, since: datetime) -> list[Change]:
    """What incidents of the model changed of its predictions, and no platform writes down: the threshold, with the restart that loads it,
    and features that were brought up to date. The switches change what follows from a prediction, not the prediction."""
    with world.transaction() as conn:
        rows = [r for r in journal.of_model(conn, model, since=since - A_CHANGE_TAKES) if r.state == ActionState.DONE and r.done_at]
    new_thresholds = {r.plan_digest for r in rows if r.kind == Configure.kind and "threshold" in r.target}
    found = []
    for row in rows:
        config = row.kind in (Configure.kind, Restart.kind) and row.plan_digest in new_thresholds
        if row.done_at and row.done_at >= since and (config or row.kind == Materialize.kind):
            found.append(Change("config" if config else "feature_store", row.incident_id, "mlrunbook", row.done_at))
    return found


def has_ledger(policy: Policy, model: str) -> bool:
    """Our own ledger says what moved in its registry."""
    parts = policy.rules_of(model).platform
    return parts is not None and parts.registry is not None


def of_model(world: World, model: str, *, since: datetime) -> list[Change]:
    """Newest first. What both tell of (same kind and ref within the hour) is the platform's. Raises what the platform raises."""
    own = list(world.platform.changes(model, since=since))
    with world.transaction() as conn:
        told = recent_changes.of_model(conn, model, since=since)
    if has_ledger(world.policy, model):
        told = [change for change in told if not is_hint(change.detail)]
    new = [t for t in told if not any((o.kind, o.ref) == (t.kind, t.ref) and abs(o.at - t.at) <= SAME for o in own)]
    return sorted([*own, *new], key=lambda change: change.at, reverse=True)
