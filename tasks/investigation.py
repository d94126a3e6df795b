"""Tasks of step 3: the checklist, the replay of other versions, the diagnosis."""

from __future__ import annotations

from typing import Any

from prefect import task

from mlrunbook.response.investigation import investigation, rollback_target
from tasks._retry import RETRY_TRANSIENT, off_loop
from tasks.run import current_run

CHECKS = tuple(investigation.CHECKS)


@task(task_run_name="check-{name}", **RETRY_TRANSIENT)
async def check(incident_id: str, name: str) -> list[str]:
    """One source's items of the checklist."""
    return await off_loop(investigation.check, current_run(), name)


@task(task_run_name="replay-other-versions", **RETRY_TRANSIENT)
async def replay_versions(incident_id: str) -> str:
    """What every other version would have answered to the requests whose outcome is known; the version that wins, in a sentence."""
    return str((await off_loop(rollback_target.choose, current_run()))["sentence"])


@task(task_run_name="diagnose-{incident_id}", **RETRY_TRANSIENT)
async def diagnose(incident_id: str) -> dict[str, Any]:
    """Ranked causes and the recommended path."""
    return await off_loop(investigation.conclude, current_run())
