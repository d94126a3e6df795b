"""Path C, asked for by a person: the request is checked before an incident opens."""

from __future__ import annotations

from prefect import task
from prefect.runtime import flow_run

from mlrunbook.bootstrap import world
from mlrunbook.domain.resolution.request import Request
from mlrunbook.response.resolution import candidate
from tasks._step import RETRY_TRANSIENT
from tasks.run import off_loop


@task(task_run_name="check-the-request-of-a-retraining", **RETRY_TRANSIENT)
async def check_retraining(model: str, asked: Request) -> Request:
    """The request with its dates in UTC. Raises Invalid if it cannot be carried out."""
    return await off_loop(candidate.check_request, world(), model, asked, by_run=str(flow_run.id))
