"""Path C, asked for by a person: the request is checked before an incident opens."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from prefect import task
from prefect.runtime import flow_run

from mlrunbook.bootstrap import world
from mlrunbook.response.resolution import candidate
from tasks._step import RETRY_TRANSIENT
from tasks.run import off_loop


@task(task_run_name="check-the-request-of-a-retraining", **RETRY_TRANSIENT)
async def check_retraining(model: str, start: datetime, end: datetime, version: str, reason: str, by: str) -> dict[str, Any]:
    """What is asked for, in the words of `open_or_join`; Invalid when it cannot be done."""
    by_run = str(flow_run.id)
    return await off_loop(candidate.check_request, world(), model, start, end, version, reason=reason, by=by, by_run=by_run)
