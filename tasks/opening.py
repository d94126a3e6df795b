"""The task that opens an incident or joins the open one."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.runtime import flow_run

from mlrunbook.bootstrap import world
from mlrunbook.domain.detection.reports import NewReport
from mlrunbook.domain.incident import IncidentType, Severity, Subtype
from mlrunbook.response.lifecycle import opening
from tasks._retry import RETRY_TRANSIENT, off_loop


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
    said = NewReport(model, severity, type, description, impact, reported_by, subtype)
    return await off_loop(opening.open_or_join, world(), said, request, by_run=by_run, unknown_model=unknown_model)
