"""The review in the console: read, edited without losing anybody's words, signed, and its action items."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import HTMLResponse, Response
from sqlalchemy import Connection

from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.domain.errors import NotFound, Overtaken
from mlrunbook.domain.incident import Incident, ItemStatus
from mlrunbook.domain.people import person_of
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.records import ReviewPart
from mlrunbook.domain.review.action_items import Item
from mlrunbook.domain.review.review import ActionItem, Approved, Reviewed, Signature
from mlrunbook.domain.roles import Role
from mlrunbook.gateway.api import reviews as bodies
from mlrunbook.gateway.api.dependencies import IncidentId
from mlrunbook.gateway.console import markdown
from mlrunbook.gateway.console.forms import NOTHING, Problem, Typed, TypedIn, answered, form_page, lines
from mlrunbook.gateway.console.rendering import page
from mlrunbook.gateway.console.route import router as console_router
from mlrunbook.gateway.console.visitor import Approver, Operator, Reader, Visitor
from mlrunbook.response import known_people
from mlrunbook.response.review import action_items, reviews
from mlrunbook.response.world import World
from mlrunbook.store import action_items as items
from mlrunbook.store import incidents, records

ItemId = Annotated[int, Path(alias="item", ge=1, lt=2**63)]


@dataclass(frozen=True)
class Part:
    """A signature: who gave it, or why this visitor cannot give it now ("": they can)."""

    part: ReviewPart
    given: Signature | None
    why_not: str = ""

    @property
    def title(self) -> str:
        return f"{self.part.capitalize()} by"


@dataclass(frozen=True)
class ItemView:
    id: int
    action: str
    owner: str
    due: str
    standing: str
    is_open: bool
    is_overdue: bool

    @classmethod
    def of(cls, item: Item, now: Any) -> ItemView:
        words = item.standing(now)
        owner = Role.named(item.owner_role)
        return cls(item.id, item.action, owner, f"{item.due_at:%Y-%m-%d}", words, item.status.is_open, item.is_overdue(now))


def router(world: World) -> APIRouter:
    routes = console_router()
    _reading(routes, world)
    _editing(routes, world)
    _signing(routes, world)
    _items(routes, world)
    return routes


def _there(incident_id: str, did: str) -> str:
    return f"/incidents/{incident_id}/review?did={did}"


# --- read


def _reading(routes: APIRouter, world: World) -> None:
    @routes.get("/incidents/{id}/review")
    def show(request: Request, visitor: Reader, incident_id: IncidentId) -> HTMLResponse:
        now = world.now()
        with world.transaction() as conn:
            incident = incidents.get(conn, incident_id)
            found = [ItemView.of(item, now) for item in items.of_incident(conn, incident_id)]
            parts = parts_of(conn, world.policy, incident_id, visitor.who)
            try:
                text, missing = markdown.html(reviews.current(conn, incident_id)), ""
            except NotFound as error:
                text, missing = None, str(error)
        values: dict[str, Any] = {
            "incident": incident,
            "text": text,
            "missing": missing,
            "parts": parts,
            "items": found,
            "due": incident.review_due_at,
        }
        return page(request, visitor, "review.html.j2", title=f"Review of {incident_id}", **values)


def parts_of(conn: Connection, policy: Policy, incident_id: str, who: Identity) -> tuple[Part, ...]:
    """In the order in which they are given."""
    reviewed, approved = records.recall(conn, incident_id, Reviewed), records.recall(conn, incident_id, Approved)
    mine = _lacks(who, policy.review.reviewed)
    theirs = _lacks(who, policy.review.approved)
    if not theirs and reviewed is None:
        theirs = "Somebody reviews it first."
    elif not theirs and reviewed and (reviewed.is_by(who.person) or reviewed.is_by(person_of(who.name))):
        theirs = "You reviewed it, so somebody else approves it."
    return (Part("reviewed", reviewed, mine), Part("approved", approved, theirs))


def _lacks(who: Identity, may: tuple[Role, ...]) -> str:
    if Scope.APPROVE not in who.scopes:
        return "You have no right to approve here."
    if who.role in may:
        return ""
    return f"{' or '.join(role.words for role in may)} signs this; {f'you are {Role.named(who.role)}' if who.role else 'you have no role'}."


# --- edit


def _editing(routes: APIRouter, world: World) -> None:
    @routes.get("/incidents/{id}/review/edit")
    def look(request: Request, visitor: Operator, incident_id: IncidentId) -> HTMLResponse:
        with world.transaction() as conn:
            incident = incidents.get(conn, incident_id)
            typed = Typed({"markdown": reviews.current(conn, incident_id), "of": reviews.version(conn, incident_id)})
        return _editor(request, visitor, world, incident, typed)

    @routes.post("/incidents/{id}/review/preview")
    def preview(request: Request, visitor: Operator, incident_id: IncidentId, typed: TypedIn) -> HTMLResponse:
        """As it would be read. Saves nothing."""
        with world.transaction() as conn:
            incident = incidents.get(conn, incident_id)
        text = markdown.html(typed["markdown"][: bodies.MAX_REVIEW])
        return _editor(request, visitor, world, incident, typed, preview=text)

    @routes.post("/incidents/{id}/review/edit")
    def save(request: Request, visitor: Operator, incident_id: IncidentId, typed: TypedIn) -> Response:
        with world.transaction() as conn:
            incident = incidents.get(conn, incident_id)

        def done() -> str:
            said = bodies.ReviewIn.model_validate({"markdown": typed["markdown"]})
            with world.transaction() as conn:
                before = reviews.version(conn, incident_id)
                reviews.edit(conn, incident_id, said.markdown, by=visitor.who.name, now=world.now(), of=typed["of"])
                after = reviews.version(conn, incident_id)
            return _there(incident_id, "edited" if after != before else "unchanged")

        def again(problem: Problem) -> Response:
            return _editor(request, visitor, world, incident, typed, problem=problem)

        try:
            return answered(request, done, again, passing=Overtaken)
        except Overtaken as error:  # the person has both texts before them, and saves in view of the newer one
            with world.transaction() as conn:
                theirs, newer = reviews.current(conn, incident_id), reviews.version(conn, incident_id)
            mine = Typed({**typed.values, "of": newer})
            return _editor(request, visitor, world, incident, mine, problem=Problem.of(error), theirs=lines(theirs))


def _editor(request: Request, visitor: Visitor, world: World, incident: Incident, typed: Typed, **more: Any) -> HTMLResponse:
    with world.transaction() as conn:
        signed = [records.recall(conn, incident.id, Reviewed), records.recall(conn, incident.id, Approved)]
    shown: dict[str, Any] = {"problem": None, "preview": None, "theirs": None, "signed": [one for one in signed if one]} | more
    status = shown["problem"].status if shown["problem"] else 200
    title = f"Edit the review of {incident.id}"
    return page(request, visitor, "review_edit.html.j2", status=status, title=title, incident=incident, typed=typed, **shown)


# --- sign


def _signing(routes: APIRouter, world: World) -> None:
    def shown(request: Request, visitor: Visitor, incident_id: str, part: ReviewPart, problem: Problem | None = None) -> HTMLResponse:
        with world.transaction() as conn:
            incident = incidents.get(conn, incident_id)
            text = markdown.html(reviews.current(conn, incident_id))
            mine = next(one for one in parts_of(conn, world.policy, incident_id, visitor.who) if one.part == part)
            of = reviews.version(conn, incident_id)
        values: dict[str, Any] = {"incident": incident, "part": mine, "text": text, "of": of}
        return form_page(request, visitor, "review_sign.html.j2", NOTHING, problem, title=f"Sign the review: {part}", **values)

    @routes.get("/incidents/{id}/review/sign/{part}")
    def look(request: Request, visitor: Approver, incident_id: IncidentId, part: ReviewPart) -> HTMLResponse:
        return shown(request, visitor, incident_id, part)

    @routes.post("/incidents/{id}/review/sign/{part}")
    def sign(request: Request, visitor: Approver, incident_id: IncidentId, part: ReviewPart, typed: TypedIn) -> Response:
        def done() -> str:
            who = reviews.Signer(visitor.who.name, visitor.who.role, visitor.who.person)
            with world.transaction() as conn:
                reviews.sign(conn, world.policy, incident_id, part, who, now=world.now(), of=typed["of"])
            return _there(incident_id, "signed")

        return answered(request, done, lambda problem: shown(request, visitor, incident_id, part, problem))


# --- action items


def _items(routes: APIRouter, world: World) -> None:
    def adding(
        request: Request, visitor: Visitor, incident_id: str, typed: Typed = NOTHING, problem: Problem | None = None
    ) -> HTMLResponse:
        with world.transaction() as conn:
            incident = incidents.get(conn, incident_id)
        values: dict[str, Any] = {"incident": incident, "roles": list(Role)}
        return form_page(request, visitor, "review_item_new.html.j2", typed, problem, title="Add an action item", **values)

    @routes.get("/incidents/{id}/review/items/new")
    def look_at_adding(request: Request, visitor: Operator, incident_id: IncidentId) -> HTMLResponse:
        return adding(request, visitor, incident_id)

    @routes.post("/incidents/{id}/review/items/new")
    def add(request: Request, visitor: Operator, incident_id: IncidentId, typed: TypedIn) -> Response:
        def done() -> str:
            said = typed.into(bodies.NewItemIn)
            with world.transaction() as conn:
                owner = known_people.checked(conn, world.policy, said.owner, "owner")
                agreed = ActionItem(said.action, owner, said.due_on)
                action_items.add(conn, world.policy, incident_id, agreed, by=visitor.who.name, now=world.now())
            return _there(incident_id, "item-added")

        return answered(request, done, lambda problem: adding(request, visitor, incident_id, typed, problem))

    def moving(
        request: Request, visitor: Visitor, incident_id: str, item_id: int, typed: Typed = NOTHING, problem: Problem | None = None
    ) -> HTMLResponse:
        with world.transaction() as conn:
            incident, item = incidents.get(conn, incident_id), _own(conn, incident_id, item_id)
        values: dict[str, Any] = {
            "incident": incident,
            "item": ItemView.of(item, world.now()),
            "now": item.status,
            "statuses": list(ItemStatus),
            "note": item.note,
        }
        title = f"Action item {item_id}"
        return form_page(request, visitor, "review_item.html.j2", typed, problem, title=title, **values)

    @routes.get("/incidents/{id}/review/items/{item}")
    def look_at_moving(request: Request, visitor: Operator, incident_id: IncidentId, item_id: ItemId) -> HTMLResponse:
        return moving(request, visitor, incident_id, item_id)

    @routes.post("/incidents/{id}/review/items/{item}")
    def move(request: Request, visitor: Operator, incident_id: IncidentId, item_id: ItemId, typed: TypedIn) -> Response:
        def done() -> str:
            said = typed.into(bodies.ItemIn)
            with world.transaction() as conn:
                _own(conn, incident_id, item_id)
                action_items.move(conn, world.policy, item_id, said.status, by=visitor.who.name, note=said.note, now=world.now())
            return _there(incident_id, "item-moved")

        return answered(request, done, lambda problem: moving(request, visitor, incident_id, item_id, typed, problem))


def _own(conn: Connection, incident_id: str, item_id: int) -> Item:
    item = items.get(conn, item_id)
    if item.incident_id != incident_id:
        raise NotFound(f"{incident_id} has no action item {item_id}")
    return item
