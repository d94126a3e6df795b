"""Tasks of step 3: the checklist, the replay of other versions, the diagnosis, and what of it is shown."""

from prefect import task

from mlrunbook.domain.communication.markdown import md
from mlrunbook.domain.investigation.diagnosis import Diagnosed
from mlrunbook.domain.investigation.findings_page import findings_markdown
from mlrunbook.response.investigation import investigation, rollback_target
from tasks._run_page import show_console_once, show_text_once
from tasks._step import RETRY_TRANSIENT, step
from tasks.plan import A_CHANGE_S
from tasks.run import current_run, off_loop

CHECKS = tuple(investigation.CHECKS)

check = step(investigation.check, "check-{name}")
replay_versions = step(rollback_target.choose, "replay-other-versions", timeout_seconds=A_CHANGE_S)
diagnose = step(investigation.conclude, "diagnose-{incident_id}")


@task(task_run_name="publish-findings", **RETRY_TRANSIENT)
async def publish_findings(incident_id: str) -> None:
    """The runbook's checklist with an answer an item, and the diagnosis."""
    run = current_run(incident_id)
    found = await off_loop(investigation.findings, run)
    diagnosis = await off_loop(run.recall, Diagnosed)
    leads = [lead.explained for lead in diagnosis.leads] if diagnosis else []
    text = findings_markdown(incident_id, diagnosis.sentence if diagnosis else "", leads, found)
    await show_console_once(run)
    await show_text_once(run, "findings", text, md(diagnosis.headline if diagnosis else ""))
