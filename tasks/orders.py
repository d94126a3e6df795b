"""What people have ordered on the spot, action by action."""

from __future__ import annotations

from prefect import task

from mlrunbook.domain.errors import Transient
from mlrunbook.steps import changes, orders
from tasks._policy import RETRY_TRANSIENT, off_loop
from tasks.changes import slug
from tasks.run import current_run

QUICKLY = RETRY_TRANSIENT | {"retries": 2, "timeout_seconds": 300}  # the order behind it must not wait; a later run tries again


@task(task_run_name="look-for-orders", **RETRY_TRANSIENT)
async def orders_to_carry_out(incident_id: str) -> list[str]:
    """Digests of what people have ordered and that is not in force, the newest first."""
    return await off_loop(orders.to_carry_out, current_run())


@task(task_run_name="{what}", **QUICKLY)
async def apply_order_action(incident_id: str, digest: str, ordinal: int, what: str) -> str:
    """One action of an order, at most once, read back."""
    return await off_loop(orders.carry_out, current_run(), digest, ordinal)


@task(task_run_name="try-again-soon", **RETRY_TRANSIENT)
async def postpone_order(incident_id: str, digest: str, ordinal: int, error: str) -> None:
    """The runtime does not answer: said once, tried again by a later run."""
    await off_loop(orders.postpone, current_run(), digest, ordinal, error)


@task(task_run_name="announce-an-order", **RETRY_TRANSIENT)
async def announce_order(incident_id: str, digest: str) -> None:
    """Status contained, people told, what was planned before planned anew."""
    await off_loop(orders.announce, current_run(), digest)


async def apply_order(incident_id: str, digest: str) -> None:
    """Every action of the order; one that fails, or that nothing answers to, does not stop the others."""
    plan = await off_loop(changes.plan_of, current_run(), digest)
    for i, action in enumerate(plan.actions):
        try:
            await apply_order_action(incident_id, digest, i, slug(action.summary))
        except (Transient, TimeoutError) as error:
            await postpone_order(incident_id, digest, i, str(error) or "it took too long")
