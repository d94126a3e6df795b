"""Alerts that nobody wants to hear for a while: silences, and maintenance windows. Stored and counted, never lost."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, NamedTuple, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints, model_validator

from mlrunbook.domain.incident import IncidentType
from mlrunbook.domain.owned import fits
from mlrunbook.domain.roles import Role
from mlrunbook.domain.safety import MISSED_FAILURE_ALERT

Text = Annotated[str, StringConstraints(min_length=1)]
# Somebody may be harmed: maintenance is no reason not to look.
SAFETY_ALERTS = frozenset({MISSED_FAILURE_ALERT, "AllAssetsHighRisk"})


class _Window(BaseModel):
    """In force from `start` up to `end`, both with their zone. `models`: ids, `*` and `?` stand for any text; none: every model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    start: AwareDatetime
    end: AwareDatetime
    reason: Text
    created_by: Role
    models: tuple[Text, ...] = ()

    @model_validator(mode="after")
    def _ends_after_it_starts(self) -> Self:
        if self.end <= self.start:
            raise ValueError("end must be after start")
        return self

    def _holds(self, model: str, now: datetime) -> bool:
        return self.start <= now < self.end and _any(model, self.models)


class Silence(_Window):
    """Every matcher that is given must fit. A missed critical failure is silenced only where `alerts` names it in full."""

    alerts: tuple[Text, ...] = ()
    types: tuple[IncidentType, ...] = ()

    @model_validator(mode="after")
    def _silences_something_in_particular(self) -> Self:
        if not (self.models or self.alerts or self.types):
            raise ValueError("a silence names models, alerts or types: one that names nothing would silence everything")
        return self

    def covers(self, model: str, name: str, type_: IncidentType, now: datetime) -> bool:
        if name == MISSED_FAILURE_ALERT and name not in self.alerts:
            return False
        return self._holds(model, now) and _any(name, self.alerts) and (not self.types or type_ in self.types)


class Maintenance(_Window):
    """Expected trouble: all alerts of these models but those about safety."""

    def covers(self, model: str, name: str, now: datetime) -> bool:
        return name not in SAFETY_ALERTS and self._holds(model, now)


class Quiet(NamedTuple):
    until: datetime
    sentence: str


def quiet(
    model: str, name: str, type_: IncidentType, now: datetime, silences: Iterable[Silence], maintenance: Iterable[Maintenance]
) -> Quiet | None:
    """Until when nobody is told of this alert, and why; None where it is heard."""
    found = [Quiet(s.end, f"silenced by the {s.created_by.words}: {s.reason}") for s in silences if s.covers(model, name, type_, now)]
    found += [Quiet(m.end, f"maintenance, by the {m.created_by.words}: {m.reason}") for m in maintenance if m.covers(model, name, now)]
    return max(found, key=lambda q: q.until, default=None)


def _any(text: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(fits(text, pattern) for pattern in patterns)
