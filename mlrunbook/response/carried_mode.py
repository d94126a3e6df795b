"""How far the runbook goes by itself in one incident: the mode of its model, and what has happened to it."""

from __future__ import annotations

import logging

from sqlalchemy import Connection

from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.detection.lifecycle import UnknownModel
from mlrunbook.domain.detection.reports import PersonsReport
from mlrunbook.domain.detection.severity_change import SeveritySet
from mlrunbook.domain.errors import RunbookError
from mlrunbook.domain.incident import Incident
from mlrunbook.domain.policy.modes import Mode, carried_in
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.store import journal, plans, records

log = logging.getLogger(__name__)


def mode_of(conn: Connection, policy: Policy, incident_id: str, model: str) -> Mode:
    """The mode that this incident is carried in now."""
    mode = policy.mode_of(model)
    if mode is not Mode.OBSERVE:
        return mode
    has_changed = any(row.may_have_happened for row in journal.of_incident(conn, incident_id))
    return carried_in(mode, taken_up=is_taken_up(conn, incident_id), has_changed=has_changed)


def is_taken_up(conn: Connection, incident_id: str) -> bool:
    """A person has reported it, says how severe it is, or has ordered something."""
    if records.with_prefix(conn, incident_id, PersonsReport.key) or plans.standing(conn, incident_id, PlanKind.EMERGENCY):
        return True
    said = records.recall_if_readable(conn, incident_id, SeveritySet)
    return said is not None and said.by_person


def is_quiet(conn: Connection, policy: Policy, incident: Incident) -> bool:
    """Nobody is paged and nothing is sent: the incident is only observed. Where that cannot be told, people are paged; also about a name
    that nobody knows: no run looks at it, so nobody would ever hear of it."""
    try:
        if records.recall_if_readable(conn, incident.id, UnknownModel):
            return False
        return mode_of(conn, policy, incident.id, incident.model) is Mode.OBSERVE
    except (RunbookError, ValueError, LookupError, TypeError, AttributeError):
        log.exception("the mode of %s cannot be read: people are paged", incident.model)
        return False
