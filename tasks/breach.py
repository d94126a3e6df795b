"""Tasks of the security and compliance branch: tell people, ask whether to lift an isolation, lift it."""

from __future__ import annotations

from prefect import task

from mlrunbook.steps import breach
from tasks._policy import RETRY_TRANSIENT, off_loop
from tasks.run import current_run


@task(task_run_name="raise-the-alarm-for-{incident_id}", **RETRY_TRANSIENT)
async def raise_alarm(incident_id: str) -> None:
    """Security and the compliance officer are told, the clocks of the law start; nothing where it is no breach."""
    await off_loop(breach.alarm, current_run())


@task(task_run_name="plan-release-of-{incident_id}", **RETRY_TRANSIENT)
async def plan_release(incident_id: str) -> str | None:
    """Digest of the plan to lift the isolation; None where nothing is isolated."""
    return await off_loop(breach.plan_release, current_run())


@task(task_run_name="lift-isolation-of-{incident_id}", **(RETRY_TRANSIENT | {"timeout_seconds": 300}))
async def lift_isolation(incident_id: str, digest: str) -> None:
    """The approved release, read back."""
    await off_loop(breach.lift, current_run(), digest)
