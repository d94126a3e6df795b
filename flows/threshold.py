"""Step 4, Path D: Threshold Adjustment, started by a person. Inside an incident the plan of `respond` does it."""

from prefect import flow

from flows.incident import follow_runbook, run_name
from mlrunbook.domain.actions import Path
from mlrunbook.domain.detection.reports import NewReport
from mlrunbook.domain.incident import IncidentType, Outcome, Severity
from mlrunbook.domain.resolution.request import Request
from tasks.incident import open_or_join


@flow(name="threshold", flow_run_name=run_name, persist_result=False)
async def threshold(
    model: str, reason: str, changedBy: str, threshold: float | None = None, severity: Severity = Severity.MEDIUM
) -> Outcome:
    """Ask for another decision threshold (0 to 1) of `model`; writes the config, restarts the server, reads it back.

    Opens or joins an incident; the change takes the same plan, approval, journal and lock as in any incident.

    Args:
        model: The model, such as predictive_maintenance.
        reason: Why; the approver reads it.
        changedBy: Your name or role.
        threshold: The decision threshold that shall hold, over 0 and under 1. Leave it empty for the smallest one that surely brings
            precision back, at most one policy step away.
        severity: How bad it is, if this opens a new incident.
    """
    request = Request(path=Path.THRESHOLD, threshold=threshold, reason=reason, by=changedBy)
    description = f"{'Another threshold' if threshold is None else f'Threshold {threshold:g}'} requested: {reason}"
    report = NewReport(model, severity, IncidentType.PERFORMANCE_DEGRADATION, description, "", changedBy)
    incident_id = await open_or_join(report, request)
    return await follow_runbook(incident_id)
