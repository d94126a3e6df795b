"""Tasks of step 2: plan containment and announce it, carry out what a person ordered, raise the alarm, lift an isolation."""

from __future__ import annotations

from typing import Any

from prefect import task

from mlrunbook.domain.errors import Transient
from mlrunbook.response.containment import breach, containment, emergency
from mlrunbook.response.execution import plans
from tasks._retry import RETRY_TRANSIENT, off_loop
from tasks.execution import slug
from tasks.run import current_run

QUICKLY = RETRY_TRANSIENT | {"retries": 2, "timeout_seconds": 300}  # the order behind it must not wait; a later run tries again


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


@task(task_run_name="look-for-orders", **RETRY_TRANSIENT)
async def orders_to_carry_out(incident_id: str) -> list[str]:
    """Digests of what people have ordered and that is not in force, the newest first."""
    return await off_loop(emergency.to_carry_out, current_run())


@task(task_run_name="{what}", **QUICKLY)
async def apply_order_action(incident_id: str, digest: str, ordinal: int, what: str) -> str:
    """One action of an order, at most once, read back."""
    return await off_loop(emergency.carry_out, current_run(), digest, ordinal)


@task(task_run_name="try-again-soon", **RETRY_TRANSIENT)
async def postpone_order(incident_id: str, digest: str, ordinal: int, error: str) -> None:
    """The runtime does not answer: said once, tried again by a later run."""
    await off_loop(emergency.postpone, current_run(), digest, ordinal, error)


@task(task_run_name="announce-an-order", **RETRY_TRANSIENT)
async def announce_order(incident_id: str, digest: str) -> None:
    """Status contained, people told, what was planned before planned anew."""
    await off_loop(emergency.announce, current_run(), digest)


async def apply_order(incident_id: str, digest: str) -> None:
    """Every action of the order; one that fails, or that nothing answers to, does not stop the others."""
    plan = await off_loop(plans.plan_of, current_run(), digest)
    for i, action in enumerate(plan.actions):
        try:
            await apply_order_action(incident_id, digest, i, slug(action.summary))
        except (Transient, TimeoutError) as error:
            await postpone_order(incident_id, digest, i, str(error) or "it took too long")


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
