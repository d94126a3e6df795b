"""What a person looks at on the run page: findings, plan, review."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact

from mlrunbook.domain.actions import Plan
from mlrunbook.domain.findings import CHECKLIST
from mlrunbook.domain.review import md
from mlrunbook.steps import changes, investigation
from tasks._policy import RETRY_TRANSIENT, off_loop
from tasks.run import current_run


@task(task_run_name="publish-findings", **RETRY_TRANSIENT)
async def publish_findings(incident_id: str) -> None:
    """The runbook's checklist with an answer an item, and the diagnosis."""
    run = current_run()
    found = {f.key: f for f in await off_loop(investigation.findings, run)}
    rows = [
        {
            "Group": item.group,
            "Item": item.title,
            "State": str(found[item.key].state),
            "Finding": found[item.key].sentence,
            "Source": found[item.key].source,
        }
        for item in CHECKLIST
        if item.key in found
    ]
    diagnosis = await off_loop(run.recorded, "diagnosis") or {}
    await acreate_table_artifact(table=rows, key=_key(incident_id, "findings"), description=md(diagnosis.get("sentence", "")))


@task(task_run_name="publish-plan", **RETRY_TRANSIENT)
async def publish_plan(incident_id: str, digest: str) -> str:
    """The plan as the approver reads it; also returned, for the form."""
    plan = await off_loop(changes.plan_of, current_run(), digest)
    text = plan_markdown(plan)
    await acreate_markdown_artifact(markdown=text, key=_key(incident_id, "plan"), description=f"Plan {digest[:12]}")
    return text


@task(task_run_name="publish-review", **RETRY_TRANSIENT)
async def publish_review(incident_id: str, markdown: str) -> None:
    await acreate_markdown_artifact(
        markdown=markdown, key=_key(incident_id, "review"), description=f"Post-incident review of {incident_id}"
    )


def plan_markdown(plan: Plan) -> str:
    """What is proposed, why, what to expect, and how to decide elsewhere. Free text is escaped: an alert wrote some of it."""
    lines = [
        f"## {plan.kind.capitalize()} plan for {md(plan.model)}",
        "",
        f"Incident **{md(plan.incident_id)}**, plan `{plan.digest[:12]}`",
        "",
    ]
    lines += ["### What will be done", ""] + [f"{n}. {md(a.summary)}" for n, a in enumerate(plan.actions, 1)] + [""]
    lines += ["### Why", ""] + [f"- {md(r)}" for r in plan.reasons] + [""]
    lines += ["### What to expect", "", md(plan.expected) or "-", ""]
    facts = [(k, v) for k, v in plan.facts.items() if not isinstance(v, list | dict) and v is not None]
    if facts:
        lines += ["### Numbers", "", "| | |", "|---|---|"] + [f"| {md(k.replace('_', ' '))} | {md(str(v))} |" for k, v in facts] + [""]
    lines += [f"`mlrunbook incidents approve {plan.incident_id} --plan {plan.digest[:12]}` decides the same."]
    return "\n".join(lines)


def _key(incident_id: str, what: str) -> str:
    return f"{incident_id}-{what}".replace("_", "-").lower()
