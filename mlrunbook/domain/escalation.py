"""The runbook's Escalation Path as a list of dated pages.

It escalates on *not resolved*: the dispatcher drops the rungs that are still ahead once the incident is resolved. An
acknowledgement stops the re-paging of that role, not the ladder.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from mlrunbook.domain.clocks import in_words
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.policy import Policy, Role


@dataclass(frozen=True)
class Rung:
    """Page `role` at `at` if the incident is still not resolved then."""

    role: Role
    at: datetime
    reason: str


def ladder(severity: Severity, opened_at: datetime, policy: Policy) -> list[Rung]:
    """Who is paged when, earliest first. A low incident is a ticket: nobody is paged (runbook, "Severity Levels")."""
    if severity is Severity.LOW:
        return []
    rungs = []
    for role in Role:
        responder = policy.escalation.of(role)
        if responder.at_once_from is not None and severity.at_least(responder.at_once_from):
            rungs.append(Rung(role, opened_at, f"severity is {severity}: the {role.words} is paged at once"))
        elif responder.after_min == 0:
            rungs.append(Rung(role, opened_at, f"the {role.words} is paged at once"))
        elif responder.after_min is not None:
            wait = timedelta(minutes=responder.after_min)
            rungs.append(Rung(role, opened_at + wait, f"not resolved after {in_words(wait)}: the {role.words} is paged"))
    return sorted(rungs, key=lambda rung: rung.at)
