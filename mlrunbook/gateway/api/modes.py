"""How far the runbook goes by itself for each model: what was observed against what happened, and who changed a mode and why."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, Field

from mlrunbook.base import web
from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.base.web import CamelModel, require
from mlrunbook.domain.errors import NotFound
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.policy.modes import Mode
from mlrunbook.domain.resolution.observation import Happened, Observed, Would, summary
from mlrunbook.gateway.api.dependencies import named
from mlrunbook.response import modes
from mlrunbook.response.resolution.observed import observed
from mlrunbook.response.world import World
from mlrunbook.store.mode_changes import ModeChange

OBSERVATIONS, MODES = "/api/v1/observations", "/api/v1/modes"


class ObservationOut(CamelModel):
    """One incident that was only observed: what would have been done, and what happened."""

    incident_id: str
    model: str
    severity: Severity
    detected_at: datetime
    headline: str
    at_once: list[str]
    asked: list[str]
    plan: list[str]
    why_no_plan: str
    happened: Happened
    same: list[str] = Field(description="What people did that would have been done")
    by_people: list[str] = Field(description="Every change near the model since, until a day after the end")
    over: str
    minutes_sooner: int | None = Field(description="How much sooner than people the runbook would have acted or asked")

    @classmethod
    def of(cls, one: Observed) -> ObservationOut:
        return cls(
            incident_id=one.incident_id,
            model=one.model,
            severity=one.severity,
            detected_at=one.detected_at,
            headline=one.resolve.headline if one.resolve else "",
            at_once=_words(one.contain.at_once),
            asked=_words(one.contain.asked),
            plan=_words(one.resolve.changes) if one.resolve else [],
            why_no_plan=one.resolve.why if one.resolve and not one.resolve.changes else "",
            happened=one.happened,
            same=[f"{c.at:%Y-%m-%d %H:%M} {c.kind} {c.ref}" for c in one.same],
            by_people=[f"{c.at:%Y-%m-%d %H:%M} {c.kind} {c.ref}" for c in one.by_people],
            over=one.over.why if one.over else "",
            minutes_sooner=one.minutes_sooner,
        )


class ObservationsOut(CamelModel):
    observations: list[ObservationOut]
    summary: str


class ModeChangeOut(CamelModel):
    """A change of mode that was seen in policy, and who has said why."""

    id: int
    model: str
    was: Mode | None
    mode: Mode
    at: datetime
    policy: str = Field(description="SHA-256 of the policy that says so, shortened")
    by: str | None
    why: str | None

    @classmethod
    def of(cls, one: ModeChange) -> ModeChangeOut:
        return cls(id=one.id, model=one.model, was=one.was, mode=one.mode, at=one.at, policy=one.policy[:12], by=one.by, why=one.why)


class ReasonIn(CamelModel):
    reason: Annotated[str, Field(min_length=1, max_length=2000)]


class ModesOut(CamelModel):
    changes: list[ModeChangeOut]


def router(world: World) -> APIRouter:
    routes = web.router(tags=["modes"])

    @routes.get(OBSERVATIONS)
    def list_observations(
        who: Annotated[Identity, Depends(require(Scope.READ))], model: str | None = None, since: AwareDatetime | None = None
    ) -> ObservationsOut:
        """Incidents of models in mode observe: what would have been done against what happened."""
        found = observed(world, model=model, since=since, may_see=who.may_see)
        return ObservationsOut(observations=[ObservationOut.of(one) for one in found], summary=summary(found))

    @routes.get(MODES)
    def list_modes(
        who: Annotated[Identity, Depends(require(Scope.READ))],
        model: str | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> ModesOut:
        """Every change of mode, the newest first."""
        with world.transaction() as conn:
            found = modes.changes(conn, model=model, limit=limit)
        return ModesOut(changes=[ModeChangeOut.of(one) for one in found if who.may_see(one.model)])

    @routes.post(MODES + "/{model}/reason")
    def say_why(model: str, body: ReasonIn, who: Annotated[Identity, Depends(require(Scope.OPERATE))]) -> ModeChangeOut:
        """Who has changed the mode of this model, or pattern of models, and why: of its newest change."""
        if not who.may_see(model):
            raise NotFound(f"no change of mode of {model[:100]} is on record")
        with world.transaction() as conn:
            return ModeChangeOut.of(modes.explain(conn, model, by=named(who), why=body.reason, now=world.now()))

    return routes


def _words(changes: tuple[Would, ...]) -> list[str]:
    return [one.summary for one in changes]
