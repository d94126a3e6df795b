"""Tasks of step 4: the plan, the fix, its recovery, and what of the containment is undone."""

from __future__ import annotations

from typing import Any

from prefect import task

from mlrunbook.response.resolution import promotion, resolution
from tasks._retry import RETRY_TRANSIENT, off_loop
from tasks.run import current_run


@task(task_run_name="plan-resolution-of-{incident_id}", **RETRY_TRANSIENT)
async def plan_resolution(incident_id: str) -> str | None:
    """Digest of the plan; None when there is no safe automatic path."""
    return await off_loop(resolution.plan, current_run())


@task(task_run_name="why-there-is-no-plan", **RETRY_TRANSIENT)
async def why_no_plan(incident_id: str) -> str:
    """For the human who is asked instead."""
    return await off_loop(resolution.why_no_plan, current_run())


@task(task_run_name="begin-resolution-of-{incident_id}", **RETRY_TRANSIENT)
async def begin_resolution(incident_id: str, digest: str) -> None:
    await off_loop(resolution.begin, current_run(), digest)


@task(task_run_name="confirm-what-is-running", **RETRY_TRANSIENT)
async def confirm_applied(incident_id: str, digest: str) -> None:
    """What the running server has loaded agrees with the plan."""
    await off_loop(resolution.applied, current_run(), digest)


@task(task_run_name="measure-recovery-of-{incident_id}", **RETRY_TRANSIENT)
async def measure_recovery(incident_id: str) -> dict[str, Any]:
    """F1 on predictions made after the fix, against the baseline."""
    return await off_loop(resolution.measure_recovery, current_run())


@task(task_run_name="return-to-the-previous-version", **(RETRY_TRANSIENT | {"timeout_seconds": 300}))
async def return_to_previous(incident_id: str) -> str | None:
    """A promotion that did not hold; the version that then serves, None where nothing was promoted."""
    return await off_loop(promotion.return_to_previous, current_run())


@task(task_run_name="plan-undo-of-containment", **RETRY_TRANSIENT)
async def plan_undo(incident_id: str) -> dict[str, Any]:
    """What of the containment is taken back, and why the rest stays."""
    return await off_loop(resolution.plan_undo, current_run())


@task(task_run_name="reopen-investigation-of-{incident_id}", **RETRY_TRANSIENT)
async def reopen(incident_id: str) -> None:
    """The fix did not work: findings and plan are put aside."""
    await off_loop(resolution.reopen, current_run())


@task(task_run_name="look-for-a-human-resolution", **RETRY_TRANSIENT)
async def human_resolution(incident_id: str) -> dict[str, Any] | None:
    """What a human said fixed it, if one has."""
    return await off_loop(current_run().recorded, "human_resolution")
