"""The model's metrics as they concern one incident: since the last change before it, against the time before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from mlrunbook.domain.detection.flapping import Reopened
from mlrunbook.domain.detection.triage import Triage
from mlrunbook.domain.evaluation.performance import ModelMetrics
from mlrunbook.domain.incident import Status
from mlrunbook.domain.tally import Tally
from mlrunbook.response.measurement import recent_changes
from mlrunbook.response.measurement.outcome_history import with_history
from mlrunbook.response.measurement.outcome_window import with_enough_outcomes
from mlrunbook.response.run import Run
from mlrunbook.response.tried import or_none
from mlrunbook.store import incidents, records

WINDOW = timedelta(hours=1)
BASELINE = timedelta(days=7)
IN_PRODUCTION = timedelta(days=30)  # how far back a version's time in production is looked at


def window_start(run: Run) -> datetime:
    """An hour ago, or the platform's last release, configuration or feature store change before the incident if that is later.

    Predictions made before the change would dilute what it did: ten bad minutes after fifty good ones look like chance. Of an
    incident that outcomes reopened: since the fix that did not hold, because the outcomes of the last hour may not be known yet.
    """
    if again := run.recall(Reopened):
        return again.since
    incident = run.incident()
    hour_ago = run.world.now() - WINDOW
    since = incident.detected_at - WINDOW
    changes = or_none("the change history", lambda: recent_changes.that_bound_windows(run.world, incident.model, since=since)) or ()
    return max([hour_ago, *(c.at for c in changes if c.at <= incident.detected_at)])


def failing_since(run: Run) -> datetime:
    """The earliest moment that the failure may have begun at: what the alerts say, or the start of what is measured."""
    began, measured = run.incident().started_at, window_start(run)
    return min(began, measured) if began else measured


def metrics(run: Run, *, version: str | None = None) -> ModelMetrics:
    """Of the version the incident is about (`version` before triage has recorded it)."""
    incident = run.incident()
    version = version or incident.model_version
    seen = run.world.platform.metrics(incident.model, since=window_start(run), version=version)
    seen = with_enough_outcomes(run.world, seen, version, before=incident.detected_at)
    before = _before_the_first_fix(run) or _before_the_last_incident(run)
    return replace(seen, baseline=replace(seen.baseline, tally=before)) if before else seen


def with_all_outcomes(run: Run, *, version: str | None = None) -> ModelMetrics:
    """`metrics`, and all outcomes since the model was last proven healthy."""
    incident, again = run.incident(), run.recall(Reopened)
    before = again.at if again else incident.detected_at
    return with_history(run.world, metrics(run, version=version), version or incident.model_version, before=before)


def _before_the_first_fix(run: Run) -> Tally | None:
    again = run.recall(Reopened)
    return again.baseline if again else None


def _before_the_last_incident(run: Run) -> Tally | None:
    """The baseline that an incident of the same model recorded less than a baseline's length ago, also one that is still open: its bad
    hours are in the platform's own baseline now, and would make this one look mild."""
    incident = run.incident()
    with run.world.transaction() as conn:
        for earlier in incidents.find(conn, model=incident.model, limit=20):
            real = earlier.status is not Status.FALSE_ALARM
            if real and BASELINE >= incident.detected_at - earlier.detected_at > timedelta(0):
                triage = records.recall_if_readable(conn, earlier.id, Triage)
                if triage and triage.baseline:
                    return triage.baseline
    return None


def baseline(run: Run) -> Tally | None:
    """How the model did before the incident, as triage recorded it: the platform's own baseline moves on, over the bad hours too."""
    triage = run.recall(Triage)
    return triage.baseline if triage else None


def baseline_by_type(run: Run) -> Mapping[str, Tally]:
    """`baseline` by asset type; empty where the platform does not say."""
    triage = run.recall(Triage)
    return triage.baseline_by_type if triage else {}


def is_dangerous(run: Run, version: str) -> bool | None:
    """Did this version flag nearly everything when it served, in the last 30 days? None when that cannot be read."""
    policy = run.policy.severity
    platform, since = run.world.platform, run.world.now() - IN_PRODUCTION
    found = or_none("the metrics", lambda: platform.metrics(run.incident().model, since=since, version=version))
    then = found.current if found else None
    if then is None or then.flagged_share is None or then.predictions < policy.min_predictions:
        return None
    return then.flagged_share >= policy.all_flagged
