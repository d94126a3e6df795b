"""Tasks of step 2: raise the alarm, preserve evidence, contain, and carry out what a person ordered."""

from mlrunbook.domain.errors import Transient
from mlrunbook.response.containment import breach, containment, emergency, evidence
from tasks._step import labelled_step, step
from tasks.plan import A_CHANGE_S, label, read_plan

raise_alarm = step(breach.alarm, "raise-the-alarm-for-{incident_id}")
preserve_evidence = step(evidence.preserve, "preserve-evidence-of-{incident_id}")
plan_containment = step(containment.plan, "plan-containment-of-{incident_id}")
announce_containment = step(containment.announce, "announce-containment-of-{incident_id}")
approved_mitigation = step(containment.approved_mitigation, "look-for-an-approved-mitigation")

plan_release = step(breach.plan_release, "plan-release-of-{incident_id}")
lift_isolation = step(breach.lift, "lift-isolation-of-{incident_id}", timeout_seconds=A_CHANGE_S)

orders_to_carry_out = step(emergency.to_carry_out, "look-for-orders")
# Two retries only: the next order must not wait, and a later run tries again.
apply_order_action = labelled_step(emergency.carry_out, "{label}", retries=2, timeout_seconds=A_CHANGE_S)
postpone_order = step(emergency.postpone, "try-again-soon")
announce_order = step(emergency.announce, "announce-an-order")


async def apply_order(incident_id: str, digest: str) -> None:
    """Apply every action of the order; one that fails or times out does not stop the others."""
    for i, action in enumerate((await read_plan(incident_id, digest)).actions):
        try:
            await apply_order_action(incident_id, label(action), digest, i)
        except (Transient, TimeoutError) as error:
            await postpone_order(incident_id, digest, i, str(error) or "it took too long")
