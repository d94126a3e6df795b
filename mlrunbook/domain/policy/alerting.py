"""Policy: silences, maintenance windows, alerts that come again, and alerts that are never quiet."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from mlrunbook.domain.incident import IncidentType
from mlrunbook.domain.policy.patterns import fits
from mlrunbook.domain.roles import Role

Minutes = Annotated[int, Field(ge=1)]
MISSED_FAILURE_ALERT = "CriticalFailureMissed"
Text = Annotated[str, StringConstraints(min_length=1)]
# Somebody may be harmed: maintenance is no reason not to look.
SAFETY_ALERTS = frozenset({MISSED_FAILURE_ALERT, "AllAssetsHighRisk"})


@dataclass(frozen=True)
class RecurrencePolicy:
    """An alert of the same model and family within `reopen_within_min` of the closing opens that incident again (0: never).

    More than `flapping_after` openings of one model and family within `flapping_within_min` are flapping: then automation stops until a
    person says go on, or nothing has opened for as long.
    """

    reopen_within_min: Annotated[int, Field(ge=0)] = 60
    flapping_after: Annotated[int, Field(ge=1)] = 3
    flapping_within_min: Minutes = 240


@dataclass(frozen=True)
class SafetyPolicy:
    """Assets whose failure endangers people or the plant, by type or by id, and how many hours ahead a prediction speaks for: a failure
    later than that was not missed. Empty lists: no asset is critical, and no missed failure raises an alert by itself."""

    critical_asset_types: tuple[str, ...] = ()
    critical_assets: tuple[str, ...] = ()
    horizon_h: Annotated[float, Field(gt=0)] = 24.0

    @property
    def horizon(self) -> timedelta:
        return timedelta(hours=self.horizon_h)


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


def _any(text: str, patterns: tuple[str, ...]) -> bool:
    return not patterns or any(fits(text, pattern) for pattern in patterns)
