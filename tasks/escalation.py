"""The hourly look whether everybody who was to be paged was."""

from __future__ import annotations

from prefect import get_run_logger, task

from mlrunbook.steps import escalation_audit
from mlrunbook.wiring import world
from tasks._policy import RETRY_TRANSIENT, off_loop


@task(task_run_name="audit-escalation", **RETRY_TRANSIENT)
async def audit_escalation() -> list[str]:
    """A sentence for every page that was missing; each goes out now."""
    missing = await off_loop(escalation_audit.audit, world())
    log = get_run_logger()
    for sentence in missing:
        log.warning("%s", sentence)
    return missing
