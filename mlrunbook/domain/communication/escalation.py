"""The runbook's Escalation Path as a list of dated pages.

It escalates on *not resolved*: the dispatcher drops the rungs that are still ahead once the incident is resolved. An
acknowledgement stops the re-paging of that role, not the ladder.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from mlrunbook.domain.communication.durations import in_words, utc
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.records import IsoTime, Record, Recorded, SpacedTime
from mlrunbook.domain.roles import Role


@dataclass(frozen=True)
class Holder(Recorded, key=Record.HOLDER):
    """Who has taken over the role or duty that the key names."""

    to: str
    by: str
    note: str
    at: IsoTime


@dataclass(frozen=True)
class AuditNote(Recorded, key=Record.ESCALATION_AUDIT):
    """The escalation audit has said once that the page of its key was missing."""

    at: SpacedTime


@dataclass(frozen=True)
class Rung:
    """Page `role` at `at` if the incident is still not resolved then."""

    role: Role
    at: datetime
    reason: str


def ladder(severity: Severity, opened_at: datetime, policy: Policy) -> list[Rung]:
    """Who is paged when, earliest first. A low incident is a ticket: nobody is paged (runbook, "Severity Levels")."""
    return [] if severity is Severity.LOW else _rungs(severity, utc(opened_at), policy)  # in UTC: on local clocks an hour may be none


def unanswered(severity: Severity, opened_at: datetime, deadline: datetime, policy: Policy) -> Rung:
    """Who is asked when nobody has acknowledged by the response time (runbook, "Severity Levels"): the next role of the ladder, which is
    the first that was not paged before the deadline, or the last one where all were. Of a low incident it is the second role."""
    deadline = utc(deadline)
    rungs = _rungs(severity, utc(opened_at), policy)
    late = "nobody has acknowledged it within the response time"
    ahead = rungs[1:2] if severity is Severity.LOW else [rung for rung in rungs if rung.at >= deadline]
    role = (ahead or rungs[-1:])[0].role
    return Rung(role, deadline, f"{late} ({in_words(policy.response_min.of(severity))}): the {role.words} is asked")


def overdue(rungs: Sequence[Rung], paged: Mapping[Role, Sequence[datetime]], answered: Collection[Role], until: datetime) -> list[Rung]:
    """The rungs that were due by `until` and were never paged: nobody of the role was told at or after the rung's moment, and it has not
    acknowledged either."""
    due = [rung for rung in rungs if rung.at <= until and rung.role not in answered]
    return [rung for rung in due if not any(at >= rung.at for at in paged.get(rung.role, ()))]


def _rungs(severity: Severity, opened_at: datetime, policy: Policy) -> list[Rung]:
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
