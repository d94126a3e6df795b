"""Step 6 over HTTP: the review, its signatures, and the action items until they are done."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from mlrunbook.base.web import CamelModel
from mlrunbook.domain.incident import ItemStatus
from mlrunbook.domain.records import ReviewPart
from mlrunbook.domain.review.review import ActionItem
from mlrunbook.gateway.api.dependencies import READER, Approver, IncidentId, Limit, Operator
from mlrunbook.gateway.api.schemas import ActionItemOut, Name, Said, Words
from mlrunbook.response import known_people
from mlrunbook.response.review import action_items, reviews
from mlrunbook.response.world import World
from mlrunbook.store import action_items as items

MAX_REVIEW = 200_000
TEXT: dict[str, Any] = {"content": {"text/markdown": {"schema": {"type": "string"}}}}
ItemId = Annotated[int, Path(alias="item", ge=1, lt=2**63)]


class ReviewIn(CamelModel):
    markdown: str = Field(
        min_length=1, max_length=MAX_REVIEW, description="The whole review. Action items and signatures are kept apart from it"
    )


class SignatureIn(CamelModel):
    part: ReviewPart


class NewItemIn(CamelModel):
    action: Said
    owner: Name = Field(description="A role, such as ml_team_lead, or a team")
    due_on: date


class ItemIn(CamelModel):
    """How an action item stands. Dropping one needs a note that says why."""

    status: ItemStatus
    note: Words = ""


class ActionItemsOut(CamelModel):
    items: list[ActionItemOut] = Field(description="The earliest due first")
    after: int | None = Field(description="Ask for the next page with `after` set to this; null: there is none")


def of_incident(routes: APIRouter, world: World) -> None:
    """Below one incident."""

    @routes.get("/{id}/review", dependencies=[READER], response_class=Response, responses={200: TEXT})
    def show_review(incident_id: IncidentId) -> Response:
        """The post-incident review in Markdown, its action items and signatures as they are now. 404 until it is drafted."""
        with world.transaction() as conn:
            return _markdown(reviews.current(conn, incident_id))

    @routes.post("/{id}/review", response_class=Response, responses={200: TEXT})
    def edit_review(incident_id: IncidentId, body: ReviewIn, who: Operator) -> Response:
        """Put people's text in place of the draft. Signatures given before are void."""
        with world.transaction() as conn:
            return _markdown(reviews.edit(conn, incident_id, body.markdown, by=who.name, now=world.now()))

    @routes.post("/{id}/review/signatures", status_code=201, response_class=Response, responses={201: TEXT})
    def sign_review(incident_id: IncidentId, body: SignatureIn, who: Approver) -> Response:
        """Reviewed By, then by another person Approved By."""
        with world.transaction() as conn:
            text = reviews.sign(conn, world.policy, incident_id, body.part, reviews.Signer(who.name, who.role, who.person), now=world.now())
        return _markdown(text, status=201)

    @routes.post("/{id}/actions", status_code=201)
    def add_action_item(incident_id: IncidentId, body: NewItemIn, who: Operator) -> ActionItemOut:
        """What the review meeting agreed on."""
        now = world.now()
        with world.transaction() as conn:
            owner = known_people.checked(conn, world.policy, body.owner, "owner")
            agreed = ActionItem(body.action, owner, body.due_on)
            made = action_items.add(conn, world.policy, incident_id, agreed, by=who.name, now=now)
        return ActionItemOut.of(made, now)


def of_all(routes: APIRouter, world: World) -> None:
    """The action items of all incidents."""

    @routes.get("/api/v1/actions", dependencies=[READER], tags=["reviews"])
    def list_action_items(
        all_: Annotated[bool, Query(alias="all", description="Those that have ended too")] = False,
        overdue: bool = False,
        after: Annotated[int | None, Query(ge=1, lt=2**63, description="Only what comes after this: `after` of the page before")] = None,
        limit: Limit = 100,
    ) -> ActionItemsOut:
        now = world.now()
        with world.transaction() as conn:
            found = items.find(conn, only_open=not all_ or overdue, due_before=now if overdue else None, after=after, limit=limit)
        return ActionItemsOut(items=[ActionItemOut.of(item, now) for item in found], after=found[-1].id if len(found) == limit else None)

    @routes.post("/api/v1/actions/{item}", tags=["reviews"])
    def move_action_item(item_id: ItemId, body: ItemIn, who: Operator) -> ActionItemOut:
        """Say how it stands: started, done, dropped for a reason, or open again."""
        now = world.now()
        with world.transaction() as conn:
            return ActionItemOut.of(action_items.move(conn, world.policy, item_id, body.status, by=who.name, note=body.note, now=now), now)


def _markdown(text: str, *, status: int = 200) -> Response:
    return Response(text, media_type="text/markdown", status_code=status)
