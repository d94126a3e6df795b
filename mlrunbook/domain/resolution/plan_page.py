"""A plan as its approver reads it."""

from __future__ import annotations

from collections.abc import Sequence

from mlrunbook.domain.actions import Plan
from mlrunbook.domain.communication.markdown import md
from mlrunbook.domain.investigation.similar_incidents import Case
from mlrunbook.domain.resolution.plan import OBJECTION

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
