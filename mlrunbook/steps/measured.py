"""The model's metrics as they concern one incident: since the last change before it, against the time before."""

from __future__ import annotations

from datetime import datetime, timedelta

from mlrunbook.domain.errors import RunbookError
from mlrunbook.domain.performance import Confusion, ModelMetrics
from mlrunbook.steps.run import Run

WINDOW = timedelta(hours=1)
IN_PRODUCTION = timedelta(days=30)  # how far back a version's time in production is looked at
CHANGES = frozenset({"deployment", "rollback", "config"})


def window_start(run: Run) -> datetime:
    """An hour ago, or the last release or configuration change before the incident if that is later.

    Predictions made before the change would dilute what it did: ten bad minutes after fifty good ones look like chance.
    """
    incident = run.incident()
    hour_ago = run.world.now() - WINDOW
    try:
        changes = run.world.platform.changes(incident.model, since=incident.detected_at - WINDOW)
    except RunbookError:
        return hour_ago
    return max([hour_ago, *(c.at for c in changes if c.kind in CHANGES and c.at <= incident.detected_at)])


def metrics(run: Run, *, version: str | None = None) -> ModelMetrics:
    """Of the version the incident is about (`version` before triage has recorded it)."""
    incident = run.incident()
    return run.world.platform.metrics(incident.model, since=window_start(run), version=version or incident.model_version)


def baseline(run: Run) -> Confusion | None:
    """How the model did before the incident, as triage recorded it: the platform's own baseline moves on, over the bad hours too."""
    counts = (run.recorded("triage") or {}).get("baseline")
    return Confusion(**counts) if counts else None


def is_dangerous(run: Run, version: str) -> bool | None:
    """Did this version flag nearly everything when it served, in the last 30 days? None when that cannot be read."""
    policy = run.world.policy.severity
    try:
        then = run.world.platform.metrics(run.incident().model, since=run.world.now() - IN_PRODUCTION, version=version).current
    except RunbookError:
        return None
    if then.flagged_share is None or then.predictions < policy.min_predictions:
        return None
    return then.flagged_share >= policy.all_flagged
