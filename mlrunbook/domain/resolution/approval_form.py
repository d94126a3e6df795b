"""Prefect's form about a plan: whether an answer in it counts, and what stands at its top."""

from __future__ import annotations

from dataclasses import dataclass

from mlrunbook.domain.actions import Plan
from mlrunbook.domain.communication import console_links
from mlrunbook.domain.policy.policy import ApprovalRule

UNVERIFIED = "it is recorded as unverified, because Prefect cannot prove who you are"


@dataclass(frozen=True)
class Form:
    """`counts` False: an answer decides nothing, so none is offered."""

    counts: bool
    text: str


def form_of(plan: Plan, rule: ApprovalRule, shown: str, console: str) -> Form:
    """The form about the plan that is `shown`. `console`: the address before the console's paths."""
    place = f"[Decide in the console]({console}{console_links.of_decision(plan.incident_id, plan.digest)})"
    command = f"`mlrunbook incidents approve {plan.incident_id} --plan {plan.digest[: console_links.SHOWN_DIGEST]}`"
    if not rule.accept_prefect_form:
        said = (
            f"**This form decides nothing.** The policy (`approvals.{plan.kind}.accept_prefect_form`) takes decisions only from people who "
            f"prove who they are.\n\n{place}, or with {command}. The run goes on by itself."
        )
    else:
        one = f", as one of {rule.count} people, whoever shares this login" if rule.count > 1 else ""
        said = f"**Your answer in this form counts**{one}; {UNVERIFIED}. To decide under your own name: {place}, or {command}."
    return Form(rule.accept_prefect_form, f"{said}\n\n{shown}")
