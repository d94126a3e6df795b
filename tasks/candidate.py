"""Path C before the gate: the steps that train, prove and shadow a candidate."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from prefect import get_run_logger, task
from prefect.runtime import flow_run

from mlrunbook.bootstrap import world
from mlrunbook.response.resolution import candidate
from tasks._retry import RETRY_TRANSIENT, off_loop
from tasks.run import current_run

A_DAY_S = 86_400  # the trainer itself keeps the policy's `training.timeout_min`


@task(task_run_name="check-the-request-of-a-retraining", **RETRY_TRANSIENT)
async def check_retraining(model: str, start: datetime, end: datetime, version: str, reason: str, by: str) -> dict[str, Any]:
    """What is asked for, in the words of `open_or_join`; Invalid when it cannot be done."""
    by_run = str(flow_run.id)
    return await off_loop(candidate.check_request, world(), model, start, end, version, reason=reason, by=by, by_run=by_run)


@task(task_run_name="has-a-candidate-proved-better", **RETRY_TRANSIENT)
async def proven_candidate(incident_id: str) -> dict[str, Any] | None:
    """What an earlier run found; None where there is still something to do."""
    return await off_loop(candidate.proven, current_run())


@task(task_run_name="is-a-retraining-wanted", **RETRY_TRANSIENT)
async def wanted_retraining(incident_id: str) -> dict[str, Any] | None:
    """Version and window, decided once; None where path C is not the way."""
    return await off_loop(candidate.wanted, current_run())


@task(task_run_name="train-{version}", **(RETRY_TRANSIENT | {"timeout_seconds": A_DAY_S}))
async def train_candidate(incident_id: str, version: str) -> dict[str, Any]:
    """The training command in a process of its own; its lines go to this task's log."""
    return await off_loop(candidate.train, current_run(), get_run_logger().info)


@task(task_run_name="register-{version}", **(RETRY_TRANSIENT | {"timeout_seconds": 300}))
async def register_candidate(incident_id: str, version: str) -> None:
    """Enter it into the registry; nothing serves it."""
    await off_loop(candidate.register, current_run())


@task(task_run_name="validate-{version}", **(RETRY_TRANSIENT | {"timeout_seconds": 300}))
async def validate_candidate(incident_id: str, version: str) -> dict[str, Any]:
    """Against the version that serves, on requests the training never saw."""
    return await off_loop(candidate.validate, current_run())


@task(task_run_name="stage-{version}", **(RETRY_TRANSIENT | {"timeout_seconds": 300}))
async def stage_candidate(incident_id: str, version: str) -> None:
    """Have it score live requests that nobody acts on."""
    await off_loop(candidate.stage, current_run())


@task(task_run_name="shadow-{version}", **(RETRY_TRANSIENT | {"timeout_seconds": 300}))
async def shadow_candidate(incident_id: str, version: str) -> dict[str, Any]:
    """Compare what both versions said to live requests."""
    return await off_loop(candidate.shadow, current_run())


@task(task_run_name="unstage-{version}", **(RETRY_TRANSIENT | {"timeout_seconds": 300}))
async def unstage_candidate(incident_id: str, version: str) -> None:
    """Take it out of the staging slot."""
    await off_loop(candidate.unstage, current_run())


@task(task_run_name="unstage-what-was-rejected", **(RETRY_TRANSIENT | {"timeout_seconds": 300}))
async def unstage_rejected(incident_id: str) -> None:
    """A candidate whose promotion was rejected leaves the staging slot."""
    await off_loop(candidate.unstage_rejected, current_run())
