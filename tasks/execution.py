"""The task that changes the world, and the one that preserves it first."""

from __future__ import annotations

from prefect import task

from mlrunbook.domain.actions import Action, Materialize
from mlrunbook.response.containment import evidence
from mlrunbook.response.execution import plans
from tasks._retry import RETRY_TRANSIENT, off_loop
from tasks.features import showing_progress
from tasks.run import current_run


@task(task_run_name="preserve-evidence-of-{incident_id}", **RETRY_TRANSIENT)
async def preserve_evidence(incident_id: str) -> list[str]:
    """Metrics, predictions, config, serving state and logs, before anything is altered."""
    return await off_loop(evidence.preserve, current_run())


@task(task_run_name="{what}", **(RETRY_TRANSIENT | {"timeout_seconds": 300}))
async def apply_action(incident_id: str, digest: str, ordinal: int, what: str) -> str:
    """One action of an approved plan, at most once, read back."""
    async with showing_progress(f"{incident_id}-progress"):
        return await off_loop(plans.apply_action, current_run(), digest, ordinal)


@task(task_run_name="{what}", **(RETRY_TRANSIENT | {"timeout_seconds": 300}))
async def apply_or_page(incident_id: str, digest: str, ordinal: int, what: str, undo_of: str | None = None) -> str:
    """As `apply_action`; what cannot be done is paged, and the runbook goes on."""
    return await off_loop(plans.apply_or_page, current_run(), digest, ordinal, undo_of)


async def apply_plan(incident_id: str, digest: str) -> list[str]:
    """Every action of the plan, in its order; how each ended. One that fails ends the run: a human decides."""
    plan = await off_loop(plans.plan_of, current_run(), digest)
    return [
        await apply_action.with_options(timeout_seconds=_timeout_s(action))(incident_id, digest, i, slug(action.summary))
        for i, action in enumerate(plan.actions)
    ]


async def apply_containment(incident_id: str, digest: str, undoes: list[str | None] | None = None) -> list[str]:
    """Every action of a containment, mitigation or undo plan; one that fails does not stop the others."""
    plan = await off_loop(plans.plan_of, current_run(), digest)
    return [
        await apply_or_page(incident_id, digest, i, slug(action.summary), undoes[i] if undoes else None)
        for i, action in enumerate(plan.actions)
    ]


def _timeout_s(action: Action) -> float:
    """A million entities take two minutes; many millions must not be cut off and begun again."""
    return 3600 if isinstance(action, Materialize) else 300


def slug(summary: str) -> str:
    return "-".join("".join(c if c.isalnum() or c in "._" else " " for c in summary).split())[:80]
