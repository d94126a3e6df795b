"""The names under which steps leave records for later ones. Stored: never change a value."""

from __future__ import annotations

from typing import Literal

REOPENED = "reopened"  # the record of the last reopening: number, at, since, why, baseline
SEVERITY_SET = "severity_set"  # the record of the last change of severity after triage's: number, at, from, to, by, why, by_person
HOLDER = "holder:"  # the record of who has taken a role or a duty over: to, by, note, at
FLAPPING = "flapping"  # the record of an incident whose automation has stopped: at, why, quiet_at
GO_ON = "flapping_go_on"  # a person's word about it: by, at, note
GRADED_AGAIN = "graded_again"  # measured once more, once an investigation
DOUBT = "severity_doubted"  # a worse alert has come: triage looks again
CANDIDATE_STEPS = ("retrain", "trained", "candidate_plan", "validation", "shadow")
CANDIDATE_RECORDS = (*CANDIDATE_STEPS, "promotion_watch")  # what another attempt at path C must not take over
ROLLBACK_TARGETS = "rollback_targets"
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
    ROLLBACK_TARGETS,
    *CANDIDATE_RECORDS,
)
REVIEW_DRAFT = "review"
REVIEWED, APPROVED = "review_reviewed", "review_approved"
SIGNATURES = (REVIEWED, APPROVED)
OF_THE_REVIEW = (REVIEW_DRAFT, *SIGNATURES)
OF_THE_RESPONSE = ("containment", "contained", "undo", *OF_THE_REVIEW)
ReviewPart = Literal["reviewed", "approved"]
