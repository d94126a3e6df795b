"""Who is who in an incident: the roles of the escalation matrix, and the duties that the runbook gives them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from mlrunbook.domain.incident import Severity


class Role(StrEnum):
    """Runbook, "Contact Information", and the security team of Step 2 as a role that can decide."""

    ONCALL_ML_ENGINEER = "oncall_ml_engineer"
    ML_TEAM_LEAD = "ml_team_lead"
    ENGINEERING_MANAGER = "engineering_manager"
    VP_ENGINEERING = "vp_engineering"
    COMPLIANCE_OFFICER = "compliance_officer"
    SECURITY_OFFICER = "security_officer"

    @property
    def words(self) -> str:
        """The role as the runbook writes it."""
        return {
            Role.ONCALL_ML_ENGINEER: "On-Call ML Engineer",
            Role.ML_TEAM_LEAD: "ML Team Lead",
            Role.ENGINEERING_MANAGER: "Engineering Manager",
            Role.VP_ENGINEERING: "VP Engineering",
            Role.COMPLIANCE_OFFICER: "Compliance Officer",
            Role.SECURITY_OFFICER: "Security Officer",
        }[self]

    @classmethod
    def named(cls, text: str) -> str:
        """A role's words for its name; any other text as it is."""
        return cls(text).words if text in set(cls) else text


def named(name: str, role: str | None) -> str:
    """A caller's name for the record, with the role of the token where the name does not say it already.

    >>> named("Kim", "ml_team_lead"), named("ML Team Lead", "ml_team_lead"), named("ci", None)
    ('Kim (ML Team Lead)', 'ML Team Lead', 'ci')
    """
    words = Role(role).words if role in set(Role) else ""
    return f"{name} ({words})" if words and words.casefold() != name.strip().casefold() else name


class Duty(StrEnum):
    """What somebody does in an incident (runbook, "Who" of Steps 2, 4 and 5)."""

    INCIDENT_COMMANDER = "incident_commander"
    CONTAINMENT_APPROVER = "containment_approver"
    RESOLUTION_APPROVER = "resolution_approver"

    @property
    def words(self) -> str:
        return self.value.replace("_", " ").title()


@dataclass(frozen=True)
class RolesPolicy:
    """Step 5: the incident commander is the team lead, or from `manager_from` on `incident_commander_then`.

    Who approves is in `approvals`: the first role of `containment` (Step 2) and of `resolution` (Step 4) is the one that is asked.
    """

    incident_commander: Role = Role.ML_TEAM_LEAD
    manager_from: Severity = Severity.CRITICAL
    incident_commander_then: Role = Role.ENGINEERING_MANAGER


@dataclass(frozen=True)
class Assigned:
    """A duty, the role it falls to, and the person who has taken it ("": the policy names none)."""

    duty: Duty
    role: Role
    name: str = ""

    @property
    def words(self) -> str:
        return f"{self.duty.words}: {self.name or self.role.words}" + (f" ({self.role.words})" if self.name else "")
