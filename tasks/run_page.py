"""What a person looks at on the run page: findings, plan, review."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from itertools import groupby

import httpx
from prefect import task
from prefect.artifacts import acreate_link_artifact, acreate_markdown_artifact
from prefect.runtime import flow_run

from mlrunbook.base.settings import settings
from mlrunbook.domain.actions import Plan
from mlrunbook.domain.detection.lifecycle import Shown
from mlrunbook.domain.errors import Transient
from mlrunbook.domain.investigation.findings import CHECKLIST, Finding, State
from mlrunbook.domain.investigation.similar_incidents import Case
from mlrunbook.domain.resolution.plan import OBJECTION
from mlrunbook.domain.review.review import md
from mlrunbook.response.execution import plans
from mlrunbook.response.investigation import investigation, similar_incidents
from mlrunbook.response.review import drift_report
from tasks._retry import RETRY_TRANSIENT, off_loop
from tasks.run import current_run


@task(task_run_name="publish-findings", **RETRY_TRANSIENT)
async def publish_findings(incident_id: str) -> None:
    """The runbook's checklist with an answer an item, and the diagnosis."""
    run = current_run()
    found = await off_loop(investigation.findings, run)
    diagnosis = await off_loop(run.recorded, "diagnosis") or {}
    leads = [str(lead["explained"]) for lead in diagnosis.get("leads", ())]
    text = findings_markdown(incident_id, diagnosis.get("sentence", ""), leads, found)
    key, about = _key(incident_id, "findings"), md(diagnosis.get("headline") or "")
    await _once(key, text, lambda: acreate_markdown_artifact(markdown=text, key=key, description=about))


@task(task_run_name="publish-plan", **RETRY_TRANSIENT)
async def publish_plan(incident_id: str, digest: str) -> str:
    """The plan as the approver reads it; also returned, for the form."""
    plan = await off_loop(plans.plan_of, current_run(), digest)
    text = plan_markdown(plan, await off_loop(similar_incidents.of_run, current_run()))
    key, about = _key(incident_id, "plan"), f"What a person decides about: {'; '.join(a.summary for a in plan.actions)}"
    await _once(key, text, lambda: acreate_markdown_artifact(markdown=text, key=key, description=about))
    return text


@task(task_run_name="publish-review", **RETRY_TRANSIENT)
async def publish_review(incident_id: str, markdown: str) -> None:
    """The post-incident review, as drafted."""
    key, about = _key(incident_id, "review"), f"Post-incident review of {incident_id}"
    await _once(key, markdown, lambda: acreate_markdown_artifact(markdown=markdown, key=key, description=about))


@task(task_run_name="publish-drift-report", **RETRY_TRANSIENT)
async def publish_drift_report(incident_id: str) -> None:
    """A link to the inputs before and during the incident, as an HTML page; nothing where it could not be drawn."""
    name = await off_loop(drift_report.keep, current_run())
    if name is None:
        return
    link = f"{settings().gateway_url.rstrip('/')}/api/v1/incidents/{incident_id}/evidence/{name}"
    key, about = (
        _key(incident_id, "drift-report"),
        "Inputs before and during the incident. Log in with any user name and a token of scope read",
    )
    await _once(key, link, lambda: acreate_link_artifact(link=link, link_text="Drift report", key=key, description=about))


async def _once(key: str, content: str, create: Callable[[], Awaitable[object]]) -> None:
    """A resumed run begins again from the top: what it has shown already it does not show twice."""
    run = current_run()
    what = (flow_run.id, key, hashlib.sha256(content.encode()).hexdigest()[:12])
    if await off_loop(run.recall, Shown, *what):
        return
    try:
        await create()
    except httpx.HTTPError as error:
        raise Transient(f"Prefect did not take the artifact {key} ({type(error).__name__}); is its server up?") from error
    await off_loop(_record, *what)


def _record(*what: str) -> None:
    run = current_run()
    with run.write() as conn:
        run.keep(conn, Shown(run.world.now()), *what)


def findings_markdown(incident_id: str, diagnosis: str, leads: Sequence[str], found: Sequence[Finding]) -> str:
    """The diagnosis, what else it may be, and one table a group of the checklist. Not Prefect's own table: that one cuts the sentences
    and shows ten rows."""
    lines = [f"## Findings of {md(incident_id)}", "", md(diagnosis), ""]
    if leads:
        lines += ["### Causes by score", "", *(f"{n}. {md(lead)}" for n, lead in enumerate(leads, 1)), ""]
    answers = {f.key: f for f in found}
    for group, items in groupby(CHECKLIST, key=lambda item: item.group):
        lines += [f"### {group}", "", "| Item | State | Finding | Source |", "|---|---|---|---|"]
        for item in items:
            if answer := answers.get(item.key):
                state = f"**{answer.state}**" if answer.state is State.SUSPECT else str(answer.state)
                lines.append(f"| {item.title} | {state} | {md(answer.sentence)} | {md(answer.source)} |")
        lines.append("")
    return "\n".join(lines)


NUMBERS = {
    "model_version": "Model version",
    "f1_baseline": "F1 at baseline",
    "f1_now": "F1 now",
    "precision_now": "Precision now",
    "recall_now": "Recall now",
    "known_outcomes": "Predictions with a known outcome",
    "known_failures": "Failures among them",
    "recall_expected": "Recall expected",
    "precision_expected": "Precision expected",
    "work_orders_per_day_now": "Work orders a day now, at most",
    "work_orders_per_day_expected": "Work orders a day expected, at most",
}


def plan_markdown(plan: Plan, past: Sequence[Case] = ()) -> str:
    """What is proposed, why, what to expect, and how to decide elsewhere. Free text is escaped: an alert wrote some of it."""
    lines = [f"## {plan.kind.capitalize()} plan for {md(plan.model)}", ""]
    lines += [f"Incident **{md(plan.incident_id)}**, plan `{plan.digest[:12]}`", ""]
    against = plan.facts.get(OBJECTION)
    lines += ["### Read this first", "", f"**{md(against)}** Somebody asked for it anyway, see why below.", ""] if against else []
    lines += ["### What will be done", ""] + [f"{n}. {md(a.summary)}" for n, a in enumerate(plan.actions, 1)] + [""]
    lines += ["### Why", ""] + [f"- {md(part)}" for reason in plan.reasons for part in reason.split("; ")] + [""]
    lines += ["### What to expect", "", md(plan.expected) or "-", ""]
    if checks := plan.facts.get("candidate"):
        lines += ["### What the candidate has shown", "", *(f"- {md(check)}" for check in checks), ""]
    if tried := plan.facts.get("dry_run"):
        lines += ["### What a Dry Run Found", "", *(f"- {md(sentence)}" for sentence in tried), ""]
    doubts = [
        f"- {word}: {md(text)}"
        for key, word in (("against", "Against it"), ("not_checked", "Not checked"))
        for text in plan.facts.get(key, ())
    ]
    if doubts:
        lines += ["### Doubts", "", *doubts, ""]
    if past:
        lines += ["### Incidents like it, and what fixed them", "", *(f"- {md(case.sentence)}" for case in past), ""]
    if measured := [(title, plan.facts[key]) for key, title in NUMBERS.items() if plan.facts.get(key) is not None]:
        lines += ["### Numbers", "", "| Measured | Value |", "|---|---|"]
        lines += [f"| {title} | {f'{value:.2f}' if isinstance(value, float) else md(str(value))} |" for title, value in measured] + [""]
    lines += [f"To decide in a terminal: `mlrunbook incidents approve {plan.incident_id} --plan {plan.digest[:12]}` (or `reject`)"]
    return "\n".join(lines)


def _key(incident_id: str, what: str) -> str:
    return f"{incident_id}-{what}".replace("_", "-").lower()
