"""The parent flow. The numbers are the steps of docs/runbooks/ml-model-incident.md; the only place with gates."""

from typing import Literal

from prefect import flow
from prefect.runtime import flow_run

from flows.candidate import prepare_candidate
from flows.communication import announce_resolution
from flows.containment import carry_out_orders, contain, mitigate
from flows.investigation import investigate
from flows.observation import observe
from flows.resolution import resolve, undo_containment, verify_recovery
from flows.review import draft_review
from flows.triage import triage
from mlrunbook.domain.detection.reports import NewReport
from mlrunbook.domain.incident import Ended, IncidentType, Outcome, Severity, Subtype
from mlrunbook.domain.records import Record
from tasks.approval import approval_state, ask_for_approval, form_answer, record_form
from tasks.candidate import staging_to_decide, unstage_rejected
from tasks.containment import lift_isolation, plan_release
from tasks.incident import automation_held, end, hand_to_human, is_recorded, look_again_later, open_or_join
from tasks.investigation import publish_findings
from tasks.observation import LOOK_AGAIN_S, is_observed, why_over
from tasks.resolution import keep_contained, plan_resolution, publish_plan, reopen, undo_to_decide, why_no_plan
from tasks.review import publish_review
from tasks.run import carrying
from tasks.triage import reassess_severity, waits_for_outcomes_s


def run_name() -> str:
    given = flow_run.parameters
    return given.get("incident_id") or f"{flow_run.flow_name}-{given.get('model') or 'unnamed'}"


@flow(name="respond", flow_run_name=run_name, persist_result=False)
async def respond(  # noqa: PLR0913 - its parameters are the form of a report
    incident_id: str = "",
    model: str = "",
    severity: Severity = Severity.MEDIUM,
    type: IncidentType = IncidentType.PERFORMANCE_DEGRADATION,
    description: str = "",
    impact: str = "",
    reportedBy: str = "",
    subtype: Subtype | None = None,
    unknownModel: bool = False,
) -> Outcome:
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
        report = NewReport(model, severity, type, description, impact, reportedBy, subtype)
        incident_id = await open_or_join(report, unknown_model=unknownModel)
    return await follow_runbook(incident_id)


async def follow_runbook(incident_id: str) -> Outcome:
    """The runbook, from whatever the store has recorded. Every line returns at once when it is done already."""
    async with carrying(incident_id) as ours:
        if not ours:
            return Outcome(incident_id, Ended.NOT_OURS, "carried by another run, ended, or about a model that nobody knows")
        await carry_out_orders(incident_id)  # 2, what a person has ordered
        triaged = await triage(incident_id)  # 1
        if not triaged.real:
            await end(incident_id)
            return Outcome(incident_id, Ended.FALSE_ALARM, f"false alarm, {triaged.summary}")
        if triaged.assessment.is_ticket and (wait := await waits_for_outcomes_s(incident_id)):
            return await later(incident_id, Ended.UNPROVEN, triaged.summary, wait)
        if await is_observed(incident_id):
            return await watch(incident_id)
        await contain(incident_id)  # 2
        await investigate(incident_id)  # 3
        if await reassess_severity(incident_id):
            await contain(incident_id)  # 2 again: it is worse than triage knew
        await publish_findings(incident_id)
        if wait := await waits_for_outcomes_s(incident_id):  # people know of it; nothing is changed before the outcomes prove it
            return await later(incident_id, Ended.UNPROVEN, triaged.summary, wait)
        await mitigate(incident_id)
        await release(incident_id)  # after a breach, if a person lets it serve before the fix
        return await fix(incident_id) or await confirm(incident_id) or await close(incident_id)


async def watch(incident_id: str) -> Outcome:
    """Mode observe: the incident ends with its alerts, or when a person says so; a person who reports or orders has it handled."""
    await observe(incident_id)
    if why := await why_over(incident_id):
        await end(incident_id)
        return Outcome(incident_id, Ended.CLOSED, why)
    return await later(incident_id, Ended.OBSERVED, "only observed: nothing is changed, nobody is asked", LOOK_AGAIN_S)


async def fix(incident_id: str) -> Outcome | None:
    """Step 4: prove, plan, ask, carry out. None: go on. An outcome: this run ends, and a person or a later run takes over."""
    if await is_recorded(incident_id, Record.HUMAN_RESOLUTION):
        return None
    digest = await staging_to_decide(incident_id)  # where people decide every change, also one that nobody serves
    if digest and await approval(incident_id, digest) == "rejected":
        return await stop(incident_id, Ended.REJECTED, "no candidate is to be tried: fix it by hand, or start a path deployment")
    candidate = await prepare_candidate(incident_id)  # path C: train, validate, shadow
    if candidate.verdict == "waiting":
        return await later(incident_id, Ended.SHADOWING, candidate.sentence, 60.0)
    digest = await plan_resolution(incident_id)
    if digest is None:
        return await stop(incident_id, Ended.NO_PLAN, await why_no_plan(incident_id))
    if await approval(incident_id, digest) == "rejected":
        await unstage_rejected(incident_id)
        return await stop(incident_id, Ended.REJECTED, "the plan was rejected: fix it by hand, or start a path deployment")
    await resolve(incident_id, digest)
    return None


async def confirm(incident_id: str) -> Outcome | None:
    """None: the model serves again and has recovered. A fix that cannot be confirmed is handed to a person."""
    if not await release(incident_id):
        return await stop(
            incident_id, Ended.STILL_ISOLATED, "the model server stays isolated: take a path, or hand over and close with a reason"
        )
    recovery = await verify_recovery(incident_id)
    if recovery.recovered is None and not recovery.give_up:
        return await later(incident_id, Ended.TOO_EARLY, recovery.sentence, recovery.look_again_s)
    if not recovery.recovered:
        await reopen(incident_id)
        return await stop(incident_id, Ended.NOT_RECOVERED, f"the fix did not work: {recovery.sentence}")
    if why := await automation_held(incident_id):
        return await stop(incident_id, Ended.HELD, f"recovered, but {why}")
    return None


async def close(incident_id: str) -> Outcome:
    """Undo containment, announce the resolution, draft the review."""
    if (digest := await undo_to_decide(incident_id)) and await approval(incident_id, digest) == "rejected":
        await keep_contained(incident_id, digest)
    await undo_containment(incident_id)
    await announce_resolution(incident_id)  # 5
    await publish_review(incident_id, await draft_review(incident_id))  # 6
    await end(incident_id)
    return Outcome(incident_id, Ended.CLOSED, "closed")


async def release(incident_id: str) -> bool:
    """After a breach: True where nothing is isolated, or a named person has had the isolation lifted; False where it is kept."""
    digest = await plan_release(incident_id)
    if digest is None:
        return True
    if await approval(incident_id, digest) == "rejected":
        return False
    await lift_isolation(incident_id, digest)
    return True


async def approval(incident_id: str, digest: str) -> Literal["approved", "rejected"]:
    """Read the decision from the store, else suspend; a resume without a valid decision suspends again."""
    while (state := await approval_state(incident_id, digest)) == "pending":
        form = await publish_plan(incident_id, digest)
        if number := await ask_for_approval(incident_id, digest):
            await record_form(incident_id, digest, number, await form_answer(form, digest, number))
    return "approved" if state == "approved" else "rejected"


async def stop(incident_id: str, ended: Ended, reason: str) -> Outcome:
    """Hand the incident to a person; this run is over."""
    await hand_to_human(incident_id, reason)
    return Outcome(incident_id, ended, f"waiting for a human, {reason}")


async def later(incident_id: str, ended: Ended, reason: str, after_s: float) -> Outcome:
    """Time must pass: the dispatcher starts the next run."""
    at = await look_again_later(incident_id, reason, after_s)
    return Outcome(incident_id, ended, f"{reason}, next look at {at}")
