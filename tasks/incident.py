"""Tasks of the parent flow: an incident opens, and a run of it stops or ends."""

from __future__ import annotations

from prefect import task
from prefect.runtime import flow_run

from mlrunbook.bootstrap import world
from mlrunbook.domain.detection.reports import NewReport
from mlrunbook.domain.resolution.request import Request
from mlrunbook.response.lifecycle import opening, runs
from tasks._step import RETRY_TRANSIENT, step
from tasks.run import off_loop

is_recorded = step(runs.is_recorded, "is-the-{record}-recorded")
automation_held = step(runs.held, "may-{incident_id}-go-on-by-itself")
hand_to_human = step(runs.stop_for_human, "hand-{incident_id}-to-a-human")
look_again_later = step(runs.look_again_later, "look-again-at-{incident_id}")
end = step(runs.done, "end-{incident_id}")


@task(task_run_name="open-or-join-{report.model}", **RETRY_TRANSIENT)
async def open_or_join(report: NewReport, request: Request | None = None, *, unknown_model: bool = False) -> str:
    """Open an incident, or join the one open for this model and failure family; returns its id. NotFound for a model nobody knows."""
    by_run = str(flow_run.id)
    return await off_loop(opening.open_or_join, world(), report, request, by_run=by_run, unknown_model=unknown_model)
