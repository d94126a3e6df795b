"""What an incident that opens again must not take over from its first time. What it led to stays on the timeline and in the journal."""

from __future__ import annotations

from sqlalchemy import Connection

from mlrunbook.regrading import DOUBT, GRADED_AGAIN
from mlrunbook.steps import rollback_target
from mlrunbook.steps.promotion import CANDIDATE_RECORDS
from mlrunbook.steps.reviews import OF_THE_REVIEW
from mlrunbook.store import records

# What was found, planned and done about a failure that is not over.
OF_THE_FIX = (
    "resolution_plan",
    "applied",
    "recovery",
    "outcomes_overdue",
    "diagnosis",
    "human_resolution",
    "request",
    GRADED_AGAIN,
    DOUBT,
    "features",
    rollback_target.RECORD,
    *CANDIDATE_RECORDS,
)
OF_THE_RESPONSE = ("containment", "contained", "undo", *OF_THE_REVIEW)


def put_aside(conn: Connection, incident_id: str) -> None:
    """All but what triage says: the incident begins again there."""
    records.forget(conn, incident_id, *OF_THE_FIX, *OF_THE_RESPONSE, *records.with_prefix(conn, incident_id, "findings:"))


def is_unproven(again: dict[str, object] | None) -> bool:
    """An alert alone has opened it again: triage may find that it is none."""
    return again is not None and again.get("measured") is False
