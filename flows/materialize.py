"""Step 4, Path B: Feature Store Issue, started by a person. Inside an incident the plan of `respond` does it."""

from datetime import datetime

from prefect import flow

from flows.incident import follow_runbook, run_name
from mlrunbook.domain.detection.reports import NewReport
from mlrunbook.domain.incident import IncidentType, Outcome, Severity
from tasks.incident import open_or_join
from tasks.materialize import materialization_asked


@flow(name="materialize", flow_run_name=run_name, persist_result=False)
async def materialize(
    model: str,
    reason: str,
    requestedBy: str,
    featureViews: list[str] = [],  # noqa: B006 - never changed; Prefect shows it in the form
    endDate: datetime | None = None,
    lookBackHours: int = 0,
    severity: Severity = Severity.MEDIUM,
) -> Outcome:
    """Ask for feature views to be materialized into the online store.

    Opens or joins an incident; the materialization takes the same plan, approval, journal and lock as in any incident.

    Args:
        model: The model that reads the features, such as predictive_maintenance.
        reason: Why; the approver reads it.
        requestedBy: Your name or role.
        featureViews: Which views, such as asset_sensors. Leave it empty for all that the model reads by the policy.
        endDate: Rows up to this moment, never in the future. Leave it empty for now.
        lookBackHours: Load again what is this old, for rows that came late or were loaded wrong. 0 goes on where the last run ended.
        severity: How bad it is, if this opens a new incident.
    """
    request = await materialization_asked(model, featureViews, endDate, lookBackHours, reason=reason, by=requestedBy)
    description = f"Materialization of {', '.join(request.views)} requested: {reason}"
    report = NewReport(model, severity, IncidentType.PERFORMANCE_DEGRADATION, description, "", requestedBy)
    incident_id = await open_or_join(report, request)
    return await follow_runbook(incident_id)
