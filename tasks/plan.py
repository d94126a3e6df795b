"""Carry out an approved plan, action by action."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import task

from mlrunbook.domain.actions import Action, Materialize
from mlrunbook.response.execution import plans
from tasks._run_page import showing_progress
from tasks._step import RETRY_TRANSIENT, labelled_step, step
from tasks.run import current_run, off_loop

A_CHANGE_S = 300
MANY_ENTITIES_S = 3600  # a million take two minutes; many millions must not time out and start over

read_plan = step(plans.plan_of, "read-the-plan")
apply_or_page = labelled_step(plans.apply_or_page, "{label}", timeout_seconds=A_CHANGE_S)


@task(task_run_name="{label}", **(RETRY_TRANSIENT | {"timeout_seconds": A_CHANGE_S}))
async def apply_action(incident_id: str, label: str, digest: str, ordinal: int) -> str:
    """Apply one action of an approved plan, at most once, and read it back."""
    async with showing_progress(f"{incident_id}-progress"):
        return await off_loop(plans.apply_action, current_run(incident_id), digest, ordinal)


async def apply_plan(incident_id: str, digest: str) -> list[str]:
    """Apply every action of the plan in order; returns how each ended. One that fails ends the run: a human decides."""
    ended = []
    for i, action in enumerate((await read_plan(incident_id, digest)).actions):
        limit_s = MANY_ENTITIES_S if isinstance(action, Materialize) else A_CHANGE_S
        ended.append(await apply_action.with_options(timeout_seconds=limit_s)(incident_id, label(action), digest, i))
    return ended


async def apply_containment(incident_id: str, digest: str, undoes: Sequence[str | None] | None = None) -> list[str]:
    """Apply every action of a containment, mitigation or undo plan; one that fails does not stop the others."""
    actions = (await read_plan(incident_id, digest)).actions
    return [await apply_or_page(incident_id, label(one), digest, i, undoes[i] if undoes else None) for i, one in enumerate(actions)]


def label(action: Action) -> str:
    """The action as the name of a run: letters, digits, dots and hyphens."""
    return "-".join("".join(c if c.isalnum() or c in "._" else " " for c in action.summary).split())[:80]
