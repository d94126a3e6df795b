"""What people, alerts and audits report, and what of it is kept for the steps that follow."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.incident import IncidentType, Severity, Subtype
from mlrunbook.domain.policy.intake import OWN
from mlrunbook.domain.policy.owned import is_model_id
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.records import Record, Recorded, SpacedTime


class Origin(StrEnum):
    """Whose word a report is. Only a person ends what a person reports; an alert's severity is a first guess from its level."""

    PERSON = "person"
    ALERT = "alert"
    AUDIT = "audit"


@dataclass(frozen=True)
class Report:
    """What somebody or something reports. `severity` is the reporter's; measuring may raise it. `proven_as`: the sender (`SENDERS` of
    `mlrunbook.domain.policy.intake`) that it was proven to come from; UNPROVEN where it was not. `read`: how the alert was read, one
    sentence; "" where nothing had to be. `budget`: on whose account it opens an incident on a model that nobody knows; "": nobody's."""

    model: str
    type: IncidentType
    family: str
    severity: Severity
    description: str
    reported_by: str
    impact: str = ""
    model_version: str | None = None
    started_at: datetime | None = None
    subtype: Subtype | None = None
    origin: Origin = Origin.PERSON
    proven_as: str = OWN
    read: str = ""
    budget: str = ""

    @property
    def by_person(self) -> bool:
        return self.origin is Origin.PERSON

    @property
    def told(self) -> str:
        """For the timeline: what is reported, and how the alert was read."""
        return f"{self.description.rstrip('.')}. {self.read}" if self.read else self.description


@dataclass(frozen=True)
class NewReport:
    """The runbook's report form as it was filled in; nobody has looked at it yet."""

    model: str
    severity: Severity
    type: IncidentType
    description: str
    impact: str
    reported_by: str
    subtype: Subtype | None = None
    origin: Origin = Origin.PERSON

    def checked(self, policy: Policy) -> Report:
        """Invalid where what an incident needs is missing, or the model's name is none."""
        for name, value in (("model", self.model), ("description", self.description), ("reportedBy", self.reported_by)):
            if not value.strip():
                raise Invalid(f"{name} is empty: give an incident id, or model, description and reportedBy", field=name)
        model = self.model.strip()
        if not is_model_id(model):
            raise Invalid(f"{model[:100]!r} is no model id: letters, digits, '.', '_' and '-', 100 at most", field="model")
        return Report(
            model=model,
            type=self.type,
            family=policy.family_of(self.type),
            severity=self.severity,
            description=self.description.strip(),
            impact=self.impact.strip(),
            reported_by=self.reported_by.strip(),
            subtype=self.subtype,
            origin=self.origin,
        )


@dataclass(frozen=True)
class FirstReport(Recorded, key=Record.REPORT):
    """What has opened the incident."""

    by_alert: bool
    severity: Severity
    type: IncidentType
    proven_as: str = OWN
    by: str = ""


@dataclass(frozen=True)
class PersonsReport(Recorded, key=Record.REPORTED):
    """One report of a person."""

    by: str
    description: str
    severity: Severity
    type: IncidentType
    at: SpacedTime
    proven_as: str = OWN


@dataclass(frozen=True)
class StatedSubtype(Recorded, key=Record.SUBTYPE):
    """Who was the first to name this kind of breach, and the first who was proven where that was another."""

    by: str
    at: SpacedTime
    proven_as: str = OWN
