"""Changes that other systems tell of, and the quarantine: what came in and could not be used, to look at and to read again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import Field, StringConstraints

from mlrunbook.base import web
from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.base.web import CamelModel, Moment
from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.observed import Change
from mlrunbook.domain.policy.intake import CHANGE_KINDS, MODEL_ID
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.api.dependencies import NEXT_BEFORE, READER, Before, Limit, Operator, named
from mlrunbook.gateway.text import clean
from mlrunbook.gateway.webhooks import proofs, registry
from mlrunbook.gateway.webhooks.ingest import Receipt, discard, replay, take_change
from mlrunbook.gateway.webhooks.judging import ModelChange
from mlrunbook.response.world import World
from mlrunbook.store import quarantine, recent_changes
from mlrunbook.store.quarantine import Listed

CLOCKS_DIFFER = timedelta(minutes=5)
RECENT = timedelta(days=7)
MAX_DETAILS = 50

ChangeReporter = Annotated[Identity, Depends(web.require(Scope.REPORT, sender="changes", model_in_body=True))]
Number = Annotated[int, Path(ge=1, lt=2**63)]
ModelName = Annotated[str, Field(pattern=f"^{MODEL_ID.pattern}$")]

ChangeKind = StrEnum("ChangeKind", {kind.upper(): kind for kind in CHANGE_KINDS})  # type: ignore[misc]


class ChangeIn(CamelModel):
    """What changed near a model, so that containment and investigation see it."""

    model: ModelName
    kind: ChangeKind
    ref: str = Field(min_length=1, max_length=300, description="What changed: a version, a commit, a job")
    author: str = Field(min_length=1, max_length=200, description="Who or what made the change")
    at: Moment = Field(description="When, with a time zone")
    detail: dict[str, str] = Field(default_factory=dict, max_length=MAX_DETAILS)


class ChangeOut(CamelModel):
    model: str
    kind: str
    ref: str
    author: str
    at: datetime
    detail: dict[str, Any]


class ChangesOut(CamelModel):
    changes: list[ChangeOut] = Field(description="The newest, as many as `limit`; ask for older ones with `until`")


Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]


class DiscardIn(CamelModel):
    reason: Reason = Field(description="Why nobody needs it")


class DiscardedOut(CamelModel):
    by: str
    at: datetime
    reason: str


class QuarantinedOut(CamelModel):
    """`incidents` are those the replay belongs to."""

    number: int
    source: str
    sender: str
    error: str
    received_at: datetime
    size_bytes: int
    replayed_at: datetime | None
    discarded: DiscardedOut | None = Field(description="Who needs it no more, since when and why; null: nobody has said so")
    times: int = Field(description="How often it came while it waited")
    proven: str = Field(description="How its sender was proven when it was received")
    incidents: list[str]

    @classmethod
    def of(cls, kept: Listed, **more: Any) -> QuarantinedOut:
        gone = kept.discarded
        return cls(
            number=kept.id,
            source=kept.source,
            sender=kept.sender,
            error=kept.error,
            received_at=kept.received_at,
            size_bytes=kept.size_bytes,
            replayed_at=None if gone else kept.replayed_at,
            discarded=DiscardedOut(by=gone.by, at=gone.at, reason=gone.reason) if gone else None,
            times=kept.times,
            proven=proofs.sentence(kept.proof),
            incidents=list((kept.replayed_into or {}).get("incidents", ())),
            **more,
        )


class QuarantineDetail(QuarantinedOut):
    body: str = Field(description="As text; what is no UTF-8 is replaced")
    headers: dict[str, str]


class QuarantineOut(CamelModel):
    waiting: int = Field(description="All that nobody has replayed or discarded yet")
    quarantined: list[QuarantinedOut]
    before: int | None = Field(description=NEXT_BEFORE)


def router(world: World, policy_now: Callable[[], Policy]) -> APIRouter:
    routes = web.router()
    _changes(routes, world)
    _quarantine(routes, world, policy_now)
    return routes


def _changes(routes: APIRouter, world: World) -> None:
    @routes.post(
        "/api/v1/changes", status_code=201, tags=["changes"], responses={200: {"model": ChangeOut, "description": "It was known already"}}
    )
    def tell_of_change(body: ChangeIn, who: ChangeReporter, response: Response) -> ChangeOut:
        """Tell of a deployment, a pipeline run, a feature store or infrastructure change. The same one again changes nothing."""
        who.confine_to(body.model)
        if body.at > world.now() + CLOCKS_DIFFER:
            raise Invalid("at: it lies in the future: tell of a change when it has happened", field="at")
        detail = {clean(k, 100): clean(v, 500) for k, v in body.detail.items()}
        change = Change(str(body.kind), clean(body.ref), clean(body.author), body.at, detail)
        if not change.ref or not change.author:
            raise Invalid("ref and author must hold more than control characters", field="author" if change.ref else "ref")
        with world.transaction() as conn:
            is_new = take_change(conn, ModelChange(body.model, change), source=clean(who.name, 200), now=world.now())
        response.status_code = 201 if is_new else 200
        return _out(body.model, change)

    @routes.get("/api/v1/changes", tags=["changes"], dependencies=[READER])
    def list_changes(
        model: Annotated[str, Query(pattern=f"^{MODEL_ID.pattern}$")],
        since: Moment | None = None,
        until: Annotated[Moment | None, Query(description="Only changes up to then")] = None,
        limit: Limit = 100,
    ) -> ChangesOut:
        """What other systems told of a model, newest first; without `since` the last 7 days. The platform's own changes are its own."""
        with world.transaction() as conn:
            found = recent_changes.of_model(conn, model, since=since or world.now() - RECENT, until=until, limit=limit)
        return ChangesOut(changes=[_out(model, change) for change in found])


def _out(model: str, change: Change) -> ChangeOut:
    return ChangeOut(model=model, kind=change.kind, ref=change.ref, author=change.author, at=change.at, detail=dict(change.detail))


def _quarantine(routes: APIRouter, world: World, policy_now: Callable[[], Policy]) -> None:
    @routes.get("/api/v1/quarantine", tags=["quarantine"], dependencies=[READER])
    def list_quarantine(
        replayed: Annotated[bool, Query(alias="all", description="Those that were replayed or discarded too")] = False,
        source: Annotated[str | None, Query(max_length=50)] = None,
        before: Before = None,
        limit: Limit = 100,
    ) -> QuarantineOut:
        """What trusted senders sent and nobody could use, newest first."""
        with world.transaction() as conn:
            found = quarantine.find(conn, replayed=replayed, source=source, before=before, limit=limit)
            waiting = quarantine.waiting(conn)
        older = found[-1].id if len(found) == limit else None
        return QuarantineOut(waiting=waiting, quarantined=[QuarantinedOut.of(kept) for kept in found], before=older)

    @routes.get("/api/v1/quarantine/{number}", tags=["quarantine"], dependencies=[READER])
    def show_quarantined(number: Number) -> QuarantineDetail:
        with world.transaction() as conn:
            kept = quarantine.get(conn, number)
        out = QuarantineDetail.of(kept, body=kept.body.decode(errors="replace"), headers=dict(kept.headers))
        assert isinstance(out, QuarantineDetail)
        return out

    @routes.post("/api/v1/quarantine/{number}/replay", tags=["quarantine"])
    def replay_quarantined(number: Number, who: Operator) -> Receipt:
        """Read it again by the policy file as it is now, once that names its model for example. 409 with the reason while it still cannot
        be used. What comes of it later than `intake.replay_window_s` opens incidents and pages; it answers no page, and nothing is
        contained on its word alone."""
        with world.transaction() as conn:
            source = quarantine.get(conn, number).source
        return replay(replace(world, policy=policy_now()), registry.of(source), number)

    @routes.post("/api/v1/quarantine/{number}/discard", tags=["quarantine"])
    def discard_quarantined(number: Number, body: DiscardIn, who: Operator) -> QuarantinedOut:
        """Say that nobody needs it. It is kept with who said so, when and why, and waits no more; it cannot be replayed. 409 where it was
        replayed or discarded before."""
        if not (reason := clean(body.reason, 1000)):
            raise Invalid("reason: say why nobody needs it, in words", field="reason")
        return QuarantinedOut.of(discard(world, number, by=clean(named(who), 200), reason=reason))
