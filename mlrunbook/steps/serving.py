"""Whether trouble of the model server is over, for the incidents that were about it."""

from __future__ import annotations

from datetime import datetime, timedelta

from mlrunbook.domain.causes import Cause
from mlrunbook.domain.errors import RunbookError
from mlrunbook.domain.incident import IncidentType
from mlrunbook.domain.serving import is_over
from mlrunbook.steps.run import Run

MINUTE = timedelta(minutes=1)


def recovered(run: Run, since: datetime) -> tuple[bool | None, str] | None:
    """The server answers and is within its limits on requests made since the change. None: the incident was not about it."""
    incident, platform, policy = run.incident(), run.world.platform, run.world.policy.severity
    cause = (run.recorded("diagnosis") or {}).get("cause")
    if incident.type is not IncidentType.INFRASTRUCTURE and cause != Cause.SERVING_INFRASTRUCTURE:
        return None
    now = run.world.now()
    try:
        status, fresh = platform.status(incident.model), platform.metrics(incident.model, since=since).current
        full_minute = since.replace(second=0, microsecond=0) + MINUTE
        if fresh.error_rate is not None and fresh.error_rate > policy.error_rate and now > full_minute:
            # Failed requests are counted by the minute: those of the change's own minute may have failed before it.
            fresh = platform.metrics(incident.model, since=full_minute).current
    except RunbookError as error:
        return None, f"the model server's figures cannot be read: {error}"
    return is_over(status, fresh, policy, since_change=now - since)
