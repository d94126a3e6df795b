"""Step 1: Incident Detection and Triage."""

from prefect import flow

from mlrunbook.domain.detection.triage import Triage
from tasks.triage import look_again_at_unproven, triage_incident


@flow(name="triage", flow_run_name="triage-{incident_id}", persist_result=False)
async def triage(incident_id: str) -> Triage:
    """Verify it is real, set the severity, name what is affected, estimate the impact; page on-call and post."""
    return await look_again_at_unproven(incident_id) or await triage_incident(incident_id)
