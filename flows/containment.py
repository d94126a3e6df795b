"""Step 2: Immediate Containment."""

from prefect import flow

from mlrunbook.domain.records import Record
from tasks.containment import (
    announce_containment,
    announce_order,
    apply_order,
    approved_mitigation,
    orders_to_carry_out,
    plan_containment,
    preserve_evidence,
    raise_alarm,
)
from tasks.incident import is_recorded
from tasks.plan import apply_containment


@flow(name="contain", flow_run_name="contain-{incident_id}", persist_result=False)
async def contain(incident_id: str) -> None:
    """Stop or minimise the damage: apply what policy allows automatically, propose the rest for approval."""
    await raise_alarm(incident_id)  # people first: it needs nothing but the store
    if await is_recorded(incident_id, Record.CONTAINED):
        return
    await preserve_evidence(incident_id)
    plan = await plan_containment(incident_id)
    if plan.automatic:
        await apply_containment(incident_id, plan.automatic)
    await announce_containment(incident_id)


async def carry_out_orders(incident_id: str) -> None:
    """Carry out emergency orders, newest first. Only evidence is preserved before them."""
    for digest in await orders_to_carry_out(incident_id):
        await preserve_evidence(incident_id)
        await apply_order(incident_id, digest)
        await announce_order(incident_id, digest)


async def mitigate(incident_id: str) -> None:
    """Apply a temporary mitigation that was approved while the investigation ran."""
    if digest := await approved_mitigation(incident_id):
        await apply_containment(incident_id, digest)
