"""Tasks that read, decide and record the decision: containment, findings, diagnosis, plan, recovery, undo."""

from __future__ import annotations

from typing import Any

from prefect import task

from mlrunbook.steps import containment, investigation, promotion, resolution, rollback_target
from tasks._policy import RETRY_TRANSIENT, off_loop
from tasks.run import current_run

CHECKS = tuple(investigation.CHECKS)


@task(task_run_name="is-the-{record}-recorded", **RETRY_TRANSIENT)
async def is_recorded(incident_id: str, record: str) -> bool:
    """Whether an earlier run came this far: a run that comes back need not ask for every step."""
    return await off_loop(current_run().recorded, record) is not None


@task(task_run_name="plan-containment-of-{incident_id}", **RETRY_TRANSIENT)
async def plan_containment(incident_id: str) -> dict[str, Any]:
    """{"automatic": digest?, "mitigation": digest?, "reasons": [...]}."""
    return await off_loop(containment.plan, current_run())


@task(task_run_name="announce-containment-of-{incident_id}", **RETRY_TRANSIENT)
async def announce_containment(incident_id: str) -> None:
    """Status contained, the people it concerns, the initial notification."""
    await off_loop(containment.announce, current_run())


@task(task_run_name="look-for-an-approved-mitigation", **RETRY_TRANSIENT)
async def approved_mitigation(incident_id: str) -> str | None:
    """Digest of a mitigation a person has approved meanwhile."""
    return await off_loop(containment.approved_mitigation, current_run())


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
