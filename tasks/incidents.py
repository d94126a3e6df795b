"""Tasks on the incident itself: open, triage, wait, close."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.runtime import flow_run

from mlrunbook.domain.incident import IncidentType, Severity, Subtype
from mlrunbook.steps import closing, lifecycle, opening
from mlrunbook.steps import triage as triage_steps
from mlrunbook.wiring import world
from tasks._policy import RETRY_TRANSIENT, off_loop
from tasks.run import current_run


@task(task_run_name="open-or-join-{model}", **RETRY_TRANSIENT)
async def open_or_join(
    model: str,
    severity: Severity,
    type: IncidentType,
    description: str,
    impact: str,
    reported_by: str,
    request: dict[str, Any] | None = None,
    subtype: Subtype | None = None,
    unknown_model: bool = False,
) -> str:
    """Open an incident, or join the one open for this model and failure family; returns its id. NotFound for a model nobody knows."""
    by_run = str(flow_run.id)
    told = (model, severity, type, description, impact, reported_by, request)
    return await off_loop(opening.open_or_join, world(), *told, by_run=by_run, subtype=subtype, unknown_model=unknown_model)


@task(task_run_name="triage-{incident_id}", **RETRY_TRANSIENT)
async def triage_incident(incident_id: str) -> dict[str, Any]:
    """Real or not, how severe; pages and posts what follows."""
    return await off_loop(triage_steps.triage, current_run())


@task(task_run_name="grade-{incident_id}-again", **RETRY_TRANSIENT)
async def grade_again(incident_id: str) -> bool:
    """Whether the investigation has seen more harm than triage: the severity then rises."""
    return await off_loop(triage_steps.grade_again, current_run())


@task(task_run_name="may-{incident_id}-go-on-by-itself", **RETRY_TRANSIENT)
async def automation_held(incident_id: str) -> str | None:
    """Why nothing more happens by itself; None where it does."""
    return await off_loop(lifecycle.held, current_run())


@task(task_run_name="hand-{incident_id}-to-a-human", **RETRY_TRANSIENT)
async def hand_to_human(incident_id: str, reason: str) -> None:
    """Page, and stop until a human acts."""
    await off_loop(lifecycle.stop_for_human, current_run(), reason=reason)


@task(task_run_name="look-again-at-{incident_id}", **RETRY_TRANSIENT)
async def look_again_later(incident_id: str, reason: str, after_s: float) -> str:
    """Have the dispatcher start the next run then; returns the time."""
    return str(await off_loop(lifecycle.look_again_later, current_run(), reason=reason, after_s=after_s))


@task(task_run_name="announce-resolution-of-{incident_id}", **RETRY_TRANSIENT)
async def send_resolution_notice(incident_id: str) -> None:
    """The notice that closes the incident."""
    await off_loop(closing.announce_resolution, current_run())


@task(task_run_name="draft-review-of-{incident_id}", **RETRY_TRANSIENT)
async def write_review(incident_id: str) -> str:
    """The post-incident review, in Markdown."""
    return await off_loop(closing.draft_review, current_run())


@task(task_run_name="end-{incident_id}", **RETRY_TRANSIENT)
async def end(incident_id: str) -> None:
    """Nothing is left to do: the lease ends."""
    await off_loop(lifecycle.done, current_run())
