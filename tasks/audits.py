"""Tasks of the regular audits, and of the hourly check that every page that was due has gone out."""

from __future__ import annotations

from datetime import UTC, datetime

from prefect import get_run_logger, task
from prefect.runtime import flow_run

from mlrunbook.bootstrap import world
from mlrunbook.domain.audits.period import Kind, Period, complete, up_to
from mlrunbook.domain.audits.section import Audit, Verdict
from mlrunbook.domain.communication.markdown import md
from mlrunbook.response.audits import audit as steps
from mlrunbook.response.communication import missed_pages
from mlrunbook.store.audits import Filed
from tasks._run_page import gateway_link, show_text
from tasks._step import RETRY_TRANSIENT, world_step
from tasks.run import off_loop

# Retried for more than an hour: the platform may be down when an audit is due.
PATIENT = {"retries": 6, "retry_delay_seconds": 900, "timeout_seconds": 600}


def period(kind: str, up_to_now: bool) -> Period:
    """By the time the run was due, not by the clock: a run that is killed and restarted covers the same days."""
    at = flow_run.scheduled_start_time or datetime.now(UTC)
    return (up_to if up_to_now else complete)(Kind(kind), at)


read_record = world_step(steps.filed, "read-the-record-of-{period.name}")
examine = world_step(steps.examine, "examine-{period.name}", **PATIENT)
open_incidents = world_step(steps.open_incidents, "open-incidents")


@task(task_run_name="file-the-report", **RETRY_TRANSIENT)
async def file_report(audit: Audit) -> Filed:
    """Write the record with its HTML report, once a period."""
    made, _ = await off_loop(steps.file, world(), audit)
    return made


@task(task_run_name="publish-audit", **RETRY_TRANSIENT)
async def publish_audit(filed: Filed) -> str:
    """The summary on the run page, with a link to the report; its sentence, for the run."""
    said = steps.sentence(filed)
    await show_text(f"audit-{filed.kind}-{filed.model}", audit_markdown(filed, gateway_link(f"audits/{filed.id}/report")), said)
    return said


def audit_markdown(filed: Filed, link: str) -> str:
    """The verdicts of one audit. Its sentences are escaped: names and alert texts are in them."""
    said = f"{md(filed.model)}, {md(filed.period)}: **{filed.verdict.words}**"
    lines = [f"## {filed.kind.words}", "", said, "", f"[The whole report]({link}): log in with any user name and a token of scope read", ""]
    lines += ["| Verdict | Line | What was found | Since the last | Incident |", "|---|---|---|---|---|"]
    for one in filed.sections:
        verdict = Verdict(one["verdict"])
        words = f"**{verdict.words}**" if verdict is Verdict.FAIL else verdict.words
        rest = (one["title"], one["sentence"], one["change"] or "-", one["incident_id"] or "-")
        lines.append(f"| {words} | {' | '.join(map(md, rest))} |")
    return "\n".join(lines)


@task(task_run_name="audit-escalation", **RETRY_TRANSIENT)
async def audit_escalation() -> list[str]:
    """A sentence for every page that was missing; each goes out now."""
    missing = await off_loop(missed_pages.audit, world())
    log = get_run_logger()
    for sentence in missing:
        log.warning("%s", sentence)
    return missing
