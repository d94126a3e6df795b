"""Step 4, Path C: Data Drift, answered by retraining; started by a person. Inside an incident the diagnosis asks for it."""

from datetime import datetime

from prefect import flow

from flows.incident import follow_runbook
from mlrunbook.domain.actions import Path
from mlrunbook.domain.detection.reports import NewReport
from mlrunbook.domain.incident import IncidentType, Outcome, Severity
from mlrunbook.domain.resolution.request import Request
from tasks.incident import open_or_join
from tasks.retrain import check_retraining


@flow(name="retrain", flow_run_name="retrain-{model_name}", persist_result=False)
async def retrain(
    start_date: datetime,
    end_date: datetime,
    model_name: str,
    version: str,
    reason: str,
    requestedBy: str,
    severity: Severity = Severity.MEDIUM,
) -> Outcome:
    """Ask for `model_name` to be trained anew on [start_date, end_date) and promoted as `version`.

    Opens or joins an incident. The candidate must prove better on requests its training never saw, those after end_date; the promotion
    takes the same plan, approval, journal and lock as any change.

    Args:
        start_date: Where the training data begin, UTC.
        end_date: Where they end, UTC; leave enough labelled requests after it to judge the candidate on.
        model_name: The model, such as predictive_maintenance.
        version: The new version, such as v2.1.0; it must not exist. Empty: the next minor version.
        reason: Why; the approver reads it.
        requestedBy: Your name or role.
        severity: How bad it is, if this opens a new incident.
    """
    request = Request(path=Path.RETRAIN, start_date=start_date, end_date=end_date, version=version or None, reason=reason, by=requestedBy)
    request = await check_retraining(model_name, request)
    description = f"Retraining requested: {reason}"
    report = NewReport(model_name, severity, IncidentType.PERFORMANCE_DEGRADATION, description, "", requestedBy)
    incident_id = await open_or_join(report, request)
    return await follow_runbook(incident_id)
