"""Tasks of step 1: triage, and triage again once more is known."""

from __future__ import annotations

from prefect import task

from mlrunbook.domain.detection.triage import Triage
from mlrunbook.response.detection import triage as triage_steps
from tasks._retry import RETRY_TRANSIENT, off_loop
from tasks.run import current_run


@task(task_run_name="triage-{incident_id}", **RETRY_TRANSIENT)
async def triage_incident(incident_id: str) -> Triage:
    """Real or not, how severe; pages and posts what follows."""
    return await off_loop(triage_steps.triage, current_run())


@task(task_run_name="grade-{incident_id}-again", **RETRY_TRANSIENT)
async def reassess_severity(incident_id: str) -> bool:
    """Whether the investigation has seen more harm than triage: the severity then rises."""
    return await off_loop(triage_steps.reassess_after_investigation, current_run())
