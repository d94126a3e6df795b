"""The forms Prefect's UI shows when a run waits for a human. Fields without defaults: an empty form must not pass a gate."""

from __future__ import annotations

from enum import StrEnum

from prefect.input import RunInput
from pydantic import Field


class Decision(StrEnum):
    APPROVED = "approved"
    REJECTED = "rejected"
    DECIDED_ELSEWHERE = "decided_elsewhere"  # by REST or the CLI: the run looks into the store again


class ApprovalForm(RunInput):
    """Decide about the plan above."""

    decision: Decision = Field(
        description="About exactly the plan shown above. decided_elsewhere: look again for a decision by REST or CLI"
    )
    name: str = Field(
        title="Your name", min_length=2, max_length=100, description="Recorded as unverified: this form cannot prove who you are"
    )
    comment: str = Field(max_length=1000, description="Why; kept with the decision")
