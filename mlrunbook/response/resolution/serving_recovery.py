"""Whether trouble of the model server is over, for the incidents that were about it."""

from __future__ import annotations

from datetime import datetime, timedelta

from mlrunbook.domain.cause import Cause
from mlrunbook.domain.incident import IncidentType
from mlrunbook.domain.investigation.diagnosis import Diagnosed
from mlrunbook.domain.investigation.serving_health import is_over, trouble_of
from mlrunbook.domain.observed import Missing
from mlrunbook.response.run import Run
from mlrunbook.response.tried import tried

MINUTE = timedelta(minutes=1)


def recovered(run: Run, since: datetime) -> tuple[bool | None, str] | None:
    """The server answers and is within its limits on requests made since the change. None: the incident was not about it."""
    incident, platform, policy = run.incident(), run.world.platform, run.policy.severity
    diagnosis = run.recall(Diagnosed)
    cause = diagnosis.cause if diagnosis else None
    if incident.type is not IncidentType.INFRASTRUCTURE and cause not in (Cause.SERVING_INFRASTRUCTURE, Cause.BAD_ROLLOUT):
        return None
    now = run.world.now()

    def judged() -> tuple[bool | None, str]:
        status, fresh = platform.status(incident.model), platform.metrics(incident.model, since=since).current
        # Failed requests are counted by the minute, and the first answers of a new process are slow: what looks bad is measured once
        # more from the first full minute on.
        full_minute = since.replace(second=0, microsecond=0) + MINUTE
        if now > full_minute and trouble_of(status, fresh, policy):
            fresh = platform.metrics(incident.model, since=full_minute).current
        return is_over(status, fresh, policy, since_change=now - since)

    found = tried("the check of the model server", judged)
    return (None, f"the model server's figures cannot be read: {found.reason}") if isinstance(found, Missing) else found
