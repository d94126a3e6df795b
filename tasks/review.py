"""Tasks of step 6: the post-incident review and the drift report that goes with it."""

from prefect import task

from mlrunbook.response.review import closing, drift_report
from tasks._run_page import gateway_link, show_console_once, show_link_once, show_text_once
from tasks._step import RETRY_TRANSIENT, step
from tasks.run import current_run, off_loop

write_review = step(closing.draft_review, "draft-review-of-{incident_id}")


@task(task_run_name="publish-review", **RETRY_TRANSIENT)
async def publish_review(incident_id: str, markdown: str) -> None:
    """The post-incident review, as drafted."""
    run = current_run(incident_id)
    await show_text_once(run, "review", markdown, f"Post-incident review of {incident_id}")
    await show_console_once(run)


@task(task_run_name="publish-drift-report", **RETRY_TRANSIENT)
async def publish_drift_report(incident_id: str) -> None:
    """A link to the inputs before and during the incident, as an HTML page; nothing where it could not be drawn."""
    run = current_run(incident_id)
    if name := await off_loop(drift_report.keep, run):
        about = "Inputs before and during the incident. Log in with any user name and a token of scope read"
        await show_link_once(run, "drift-report", gateway_link(f"incidents/{incident_id}/evidence/{name}"), "Drift report", about)
