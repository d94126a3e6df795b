"""Step 4: Resolution. The paths' own deployments are in rollback.py, materialize.py, retrain.py and threshold.py."""

from prefect import flow

from mlrunbook.domain.resolution.recovery import RecoveryOutlook
from tasks.plan import apply_containment, apply_plan
from tasks.resolution import begin_resolution, confirm_applied, measure_recovery, plan_undo, return_to_previous


@flow(name="resolve", flow_run_name="resolve-{incident_id}", persist_result=False)
async def resolve(incident_id: str, digest: str) -> None:
    """Carry out the approved plan, read every change back, and confirm what the running server has loaded."""
    await begin_resolution(incident_id, digest)
    await apply_plan(incident_id, digest)
    await confirm_applied(incident_id, digest)


@flow(name="verify-recovery", flow_run_name="verify-recovery-of-{incident_id}", persist_result=False)
async def verify_recovery(incident_id: str) -> RecoveryOutlook:
    """Measure predictions made after the fix; a promotion that did not hold is reverted at once."""
    recovery = await measure_recovery(incident_id)
    if recovery.recovered is False:
        await return_to_previous(incident_id)
    return recovery


@flow(name="undo-containment", flow_run_name="undo-containment-of-{incident_id}", persist_result=False)
async def undo_containment(incident_id: str) -> None:
    """Undo containment, or keep it for a stated reason."""
    undo = await plan_undo(incident_id)
    if undo.digest:
        await apply_containment(incident_id, undo.digest, undo.undoes)
