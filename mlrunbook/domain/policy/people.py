"""Policy: who is paged and told, by which channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from mlrunbook.domain.incident import Severity
from mlrunbook.domain.roles import Role

ChannelName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]*$")]
Text = Annotated[str, StringConstraints(min_length=1)]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


UNNAMED = "[Name]"


class Contact(Section):
    """Someone who is told. The real name and address stay out of the repository: `channels` lead to them."""

    name: Text = UNNAMED
    email: Text
    channels: tuple[ChannelName, ...]


class Responder(Contact):
    """A role of the escalation path: paged `after_min` minutes after detection (None: only as needed) while the incident
    is not resolved, or at once from severity `at_once_from` upwards."""

    channels: tuple[ChannelName, ...] = ("page",)
    after_min: Annotated[int, Field(ge=0)] | None = None
    at_once_from: Severity | None = None


class Escalation(Section):
    """Runbook, "Escalation Matrix" and "Escalation Path"."""

    oncall_ml_engineer: Responder = Responder(email="ml-oncall@example.com", after_min=0)
    ml_team_lead: Responder = Responder(email="ml-lead@example.com", after_min=30, at_once_from=Severity.HIGH)
    engineering_manager: Responder = Responder(email="eng-manager@example.com", after_min=60, at_once_from=Severity.CRITICAL)
    vp_engineering: Responder = Responder(email="vp-eng@example.com", after_min=120)
    compliance_officer: Responder = Responder(email="compliance@example.com", channels=("compliance",))
    security_officer: Responder = Responder(email="security@example.com", channels=("security",))

    @model_validator(mode="after")
    def _somebody_is_paged(self) -> Self:
        if self.oncall_ml_engineer.after_min is None:
            raise ValueError("oncall_ml_engineer.after_min: must be a number of minutes, or nobody is paged first")
        return self

    def of(self, role: Role) -> Responder:
        responder: Responder = getattr(self, role.value)
        return responder


class Contacts(Section):
    """The people of Step 2 outside the escalation path."""

    security: Contact = Contact(email="security@example.com", channels=("security",))
    supervisors: Contact = Contact(email="supervisors@example.com", channels=("supervisors",))
    maintenance: Contact = Contact(email="maintenance@example.com", channels=("maintenance",))


def people_of(escalation: Escalation, contacts: Contacts) -> list[tuple[str, Contact]]:
    """Everyone, each with the key in the policy."""
    people: list[tuple[str, Contact]] = [(f"escalation.{role}", escalation.of(role)) for role in Role]
    return people + [(f"contacts.{name}", getattr(contacts, name)) for name in type(contacts).model_fields]


def through(channels: Iterable[str], stand_ins: Mapping[str, str]) -> tuple[str, ...]:
    """The channels that stand for these."""
    return tuple(dict.fromkeys(stand_ins.get(one, one) for one in channels))


def reached_through(escalation: Escalation, contacts: Contacts, stand_ins: Mapping[str, str]) -> tuple[Escalation, Contacts]:
    """Everyone by the channels that stand for theirs."""

    def moved(one: Contact) -> Contact:
        return one.model_copy(update={"channels": through(one.channels, stand_ins)})

    return (
        escalation.model_copy(update={role.value: moved(escalation.of(role)) for role in Role}),
        contacts.model_copy(update={name: moved(getattr(contacts, name)) for name in type(contacts).model_fields}),
    )
