"""The parent flow. The numbers are the steps of docs/runbooks/ml-model-incident.md; the only place with gates."""

from prefect import flow
from prefect.flow_runs import asuspend_flow_run
from prefect.runtime import flow_run
from pydantic import ValidationError

from flows.candidate import prepare_candidate
from flows.communication import announce_resolution
from flows.containment import carry_out_orders, contain, mitigate
from flows.investigation import investigate
from flows.resolution import resolve, undo_containment, verify_recovery
from flows.review import draft_review
from flows.triage import triage
from mlrunbook.domain.incident import IncidentType, Severity, Subtype
from tasks.approval import approval_state, ask_for_approval, record_form
from tasks.candidate import unstage_rejected
from tasks.containment import lift_isolation, plan_release
from tasks.forms import ApprovalForm
from tasks.opening import open_or_join
from tasks.resolution import human_resolution, plan_resolution, reopen, why_no_plan
from tasks.run import automation_held, carrying, end, hand_to_human, look_again_later
from tasks.run_page import publish_findings, publish_plan, publish_review
from tasks.triage import reassess_severity


def run_name() -> str:
    given = flow_run.parameters
    return given.get("incident_id") or f"{flow_run.flow_name}-{given.get('model') or 'unnamed'}"


@flow(name="respond", flow_run_name=run_name, persist_result=False)
async def respond(
    incident_id: str = "",
    model: str = "",
    severity: Severity = Severity.MEDIUM,
    type: IncidentType = IncidentType.PERFORMANCE_DEGRADATION,
    description: str = "",
    impact: str = "",
    reportedBy: str = "",
    subtype: Subtype | None = None,
    unknownModel: bool = False,
) -> str:
    """Carry one incident from alert to review.

    Give `incident_id` to go on with an incident, or leave it empty and describe a new one. A second run for the same incident ends
    at once.

    Args:
        incident_id: To go on with an incident, such as incident_12. Leave it empty to report a new one below.
        model: The model that is affected, such as predictive_maintenance. Needed for a new incident.
        severity: Your first judgement. Measurements may raise it, never lower it.
        type: What kind of failure it is.
        description: What you see. Needed for a new incident.
        impact: Whom it harms and how, as far as you know.
        reportedBy: Your name or role. Needed for a new incident.
        subtype: What kind of security or compliance incident it is, if you know.
        unknownModel: Report it although neither the registry nor the policy knows the model: somebody is paged, nothing is changed.
    """
    if not incident_id:
        told = (model, severity, type, description, impact, reportedBy)
        incident_id = await open_or_join(*told, subtype=subtype, unknown_model=unknownModel)
    return await follow_runbook(incident_id)


async def follow_runbook(incident_id: str) -> str:
    """The runbook, from whatever the store has recorded. Every line returns at once when it is done already."""
    async with carrying(incident_id) as ours:
        if not ours:
            return f"{incident_id}: carried by another run, ended, or about a model that nobody knows"
        await carry_out_orders(incident_id)  # 2, where a person has ordered something
        triaged = await triage(incident_id)  # 1
        if not triaged.real:
            await end(incident_id)
            return f"{incident_id}: false alarm, {triaged.summary}"
        await contain(incident_id)  # 2
        await investigate(incident_id)  # 3
        if await reassess_severity(incident_id):
            await contain(incident_id)  # 2 again: it is worse than triage knew
        await publish_findings(incident_id)
        await mitigate(incident_id)
        released = await release(incident_id)
        if not await human_resolution(incident_id):
            candidate = await prepare_candidate(incident_id)  # 4, path C: train, validate, shadow
            if candidate["verdict"] == "waiting":
                at = await look_again_later(incident_id, candidate["sentence"], 60.0)
                return f"{incident_id}: {candidate['sentence']}, next look at {at}"
            digest = await plan_resolution(incident_id)  # 4
            if digest is None:
                await hand_to_human(incident_id, why := await why_no_plan(incident_id))
                return f"{incident_id}: waiting for a human, {why}"
            if await approval(incident_id, digest) == "rejected":
                await unstage_rejected(incident_id)
                await hand_to_human(incident_id, "the plan was rejected: fix it by hand, or start a path deployment")
                return f"{incident_id}: waiting for a human, the plan was rejected"
            await resolve(incident_id, digest)
        if not released and not await release(incident_id):
            await hand_to_human(incident_id, "the model server stays isolated: take a path, or hand over and close with a reason")
            return f"{incident_id}: waiting for a human, the model server stays isolated"
        recovery = await verify_recovery(incident_id)
        if recovery["recovered"] is None and not recovery.get("give_up"):
            at = await look_again_later(incident_id, recovery["sentence"], recovery.get("look_again_s", 60.0))
            return f"{incident_id}: too early to call it recovered, next look at {at}"
        if not recovery["recovered"]:
            await reopen(incident_id)
            await hand_to_human(incident_id, f"the fix did not work: {recovery['sentence']}")
            return f"{incident_id}: waiting for a human, {recovery['sentence']}"
        if held := await automation_held(incident_id):
            await hand_to_human(incident_id, f"recovered, but {held}")
            return f"{incident_id}: waiting for a human, {held}"
        await undo_containment(incident_id)
        await announce_resolution(incident_id)  # 5
        await publish_review(incident_id, await draft_review(incident_id))  # 6
        await end(incident_id)
        return f"{incident_id}: closed, {recovery['sentence']}"


async def release(incident_id: str) -> bool:
    """After a breach: True where nothing is isolated, or a named person has had the isolation lifted; False where it is kept."""
    digest = await plan_release(incident_id)
    if digest is None:
        return True
    if await approval(incident_id, digest) == "rejected":
        return False
    await lift_isolation(incident_id, digest)
    return True


async def approval(incident_id: str, digest: str) -> str:
    """approved or rejected. Checks the row, else suspends; a resume without a valid row suspends again."""
    while (state := await approval_state(incident_id, digest)) == "pending":
        plan = await publish_plan(incident_id, digest)
        number = await ask_for_approval(incident_id, digest)
        if number is not None:
            form = ApprovalForm.with_initial_data(description=plan)
            try:
                answer = await asuspend_flow_run(wait_for_input=form, key=f"approval-{digest[:12]}-{number}")
            except ValidationError:  # a retry of a killed run: Prefect stops at a gate only once, answered or not
                answer = None
            await record_form(incident_id, digest, number, answer.model_dump(mode="json") if answer else None)
    return state
