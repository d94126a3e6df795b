"""Tasks around the gate. The truth is the approval row in the store; Prefect's form is a door that policy may open."""

from __future__ import annotations

from typing import Any

from prefect import task

from mlrunbook.response.execution import approval_gate
from tasks._retry import RETRY_TRANSIENT, off_loop
from tasks.run import current_run


@task(task_run_name="look-for-an-approval", **RETRY_TRANSIENT)
async def approval_state(incident_id: str, digest: str) -> str:
    """approved, rejected or pending."""
    return await off_loop(approval_gate.approval_state, current_run(), digest)


@task(task_run_name="ask-for-approval", **RETRY_TRANSIENT)
async def ask_for_approval(incident_id: str, digest: str) -> int | None:
    """Page who decides and park the lease; the number of this ask, or None when it is decided already."""
    return await off_loop(approval_gate.wait_for_approval, current_run(), digest)


@task(task_run_name="record-the-form", **RETRY_TRANSIENT)
async def record_form(incident_id: str, digest: str, number: int, answer: dict[str, Any] | None) -> bool:
    """Keep what was typed; it counts only where policy says so."""
    return await off_loop(approval_gate.record_form, current_run(), digest, number, answer)
