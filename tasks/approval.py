"""The gate: whether a plan is approved, and the form Prefect's UI shows meanwhile. The truth is the approval row in the store; the form is
a door that policy may open.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from prefect import flow_runs
from prefect.input import RunInput
from pydantic import ConfigDict, Field, ValidationError, WithJsonSchema

from mlrunbook.domain.approval import FormAnswer
from mlrunbook.domain.resolution.approval_form import Form
from mlrunbook.response.execution import approval_gate
from tasks._step import step

approval_state = step(approval_gate.approval_state, "look-for-an-approval")
ask_for_approval = step(approval_gate.wait_for_approval, "ask-for-approval")
record_form = step(approval_gate.record_form, "record-the-form")


class Decision(StrEnum):
    APPROVED = "approved"
    REJECTED = "rejected"
    DECIDED_ELSEWHERE = "decided_elsewhere"  # by REST or the CLI: the run looks into the store again


class Look(StrEnum):
    DECIDED_ELSEWHERE = "decided_elsewhere"


class LookAgainForm(RunInput):
    """Nothing is decided here."""

    # The dispatcher resumes with an answer to either form, so more fields than this one are taken, and mean nothing.
    model_config = ConfigDict(extra="allow")
    decision: Annotated[Look, WithJsonSchema({"type": "string", "enum": list(Look)})] = Field(  # a menu, as in the other form
        title="Look again", description="Only after a decision elsewhere that the run has not noticed by itself"
    )


class ApprovalForm(RunInput):
    """Decide about the plan above."""

    # Fields without defaults: an empty form must not pass a gate.
    decision: Decision = Field(
        description="About exactly the plan shown above. decided_elsewhere: look again for a decision in the console, by REST or CLI"
    )
    name: str = Field(
        title="Your name", min_length=2, max_length=100, description="Recorded as unverified: this form cannot prove who you are"
    )
    comment: str = Field(max_length=1000, description="Why; kept with the decision")


async def form_answer(form: Form, digest: str, number: int) -> FormAnswer | None:
    """Suspend the run until somebody answers the form, or decides elsewhere; what was typed.

    None: a run that was killed here is retried, and Prefect stops at a gate only once, answered or not.
    """
    shown = (ApprovalForm if form.counts else LookAgainForm).with_initial_data(description=form.text)
    try:
        answer = await flow_runs.asuspend_flow_run(wait_for_input=shown, key=f"approval-{digest[:12]}-{number}")
    except ValidationError:
        return None
    said = answer.model_dump(mode="json")
    return FormAnswer(said["decision"], str(said.get("name", "")), str(said.get("comment", "")))
