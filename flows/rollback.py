"""Step 4, Path A: Model Rollback, started by a person. Inside an incident the plan of `respond` does it."""

from prefect import flow

from flows.incident import follow_runbook, run_name
from mlrunbook.domain.actions import Path
from mlrunbook.domain.detection.reports import NewReport
from mlrunbook.domain.incident import IncidentType, Outcome, Severity
from mlrunbook.domain.resolution.request import Request
from tasks.incident import open_or_join


@flow(name="rollback", flow_run_name=run_name, persist_result=False)
async def rollback(model: str, targetVersion: str, reason: str, rolledBackBy: str, severity: Severity = Severity.MEDIUM) -> Outcome:
    """Ask for a rollback of `model` to `targetVersion`.

    Opens or joins an incident; the rollback takes the same plan, approval, journal and lock as in any incident.

    Args:
        model: The model, such as predictive_maintenance.
        targetVersion: The version that shall serve, such as v1.5.0.
        reason: Why; the approver reads it.
        rolledBackBy: Your name or role.
        severity: How bad it is, if this opens a new incident.
    """
    request = Request(path=Path.ROLLBACK, target_version=targetVersion, reason=reason, by=rolledBackBy)
    description = f"Rollback to {targetVersion} requested: {reason}"
    report = NewReport(model, severity, IncidentType.PERFORMANCE_DEGRADATION, description, "", rolledBackBy)
    incident_id = await open_or_join(report, request)
    return await follow_runbook(incident_id)
