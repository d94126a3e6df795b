"""Tasks of step 4: the plan and what a person reads of it, the fix, its recovery, and what of the containment is undone."""

from prefect import task

from mlrunbook.domain.resolution.approval_form import Form, form_of
from mlrunbook.domain.resolution.plan_page import plan_markdown
from mlrunbook.response.execution import plans
from mlrunbook.response.investigation import similar_incidents
from mlrunbook.response.resolution import promotion, resolution
from tasks._run_page import console_address, show_console_once, show_text_once
from tasks._step import RETRY_TRANSIENT, step
from tasks.plan import A_CHANGE_S
from tasks.run import current_run, off_loop

plan_resolution = step(resolution.plan, "plan-resolution-of-{incident_id}")
why_no_plan = step(resolution.why_no_plan, "why-there-is-no-plan")
begin_resolution = step(resolution.begin, "begin-resolution-of-{incident_id}")
confirm_applied = step(resolution.applied, "confirm-what-is-running")
measure_recovery = step(resolution.measure_recovery, "measure-recovery-of-{incident_id}")
return_to_previous = step(promotion.return_to_previous, "return-to-the-previous-version", timeout_seconds=A_CHANGE_S)
plan_undo = step(resolution.plan_undo, "plan-undo-of-containment")
undo_to_decide = step(resolution.undo_to_decide, "who-decides-about-taking-back")
keep_contained = step(resolution.keep_contained, "keep-containment")
reopen = step(resolution.reopen, "reopen-investigation-of-{incident_id}")


@task(task_run_name="publish-plan", **RETRY_TRANSIENT)
async def publish_plan(incident_id: str, digest: str) -> Form:
    """The plan as the approver reads it, and the form about it."""
    run = current_run(incident_id)
    plan = await off_loop(plans.plan_of, run, digest)
    text = plan_markdown(plan, await off_loop(similar_incidents.of_run, run))
    await show_text_once(run, "plan", text, f"What a person decides about: {'; '.join(a.summary for a in plan.actions)}")
    await show_console_once(run)
    return form_of(plan, run.world.policy.approvals.of(plan.kind), text, console_address(run))
