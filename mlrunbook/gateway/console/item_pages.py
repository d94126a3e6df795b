"""`/actions`: the action items of the reviews, until each is done or dropped."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from fastapi import APIRouter, Form, Path, Query, Request, Response
from fastapi.responses import RedirectResponse

from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.incident import ItemStatus
from mlrunbook.domain.roles import Role
from mlrunbook.gateway.console import rendering, words
from mlrunbook.gateway.console.visitor import ListReader, Operator, Visitor
from mlrunbook.gateway.text import clean
from mlrunbook.response.review import action_items
from mlrunbook.response.world import World
from mlrunbook.store import action_items as items

ON_A_PAGE = 50
MAX_NOTE = 2_000

ItemId = Annotated[int, Path(alias="item", ge=1, lt=2**63)]
Note = Annotated[str, Form(max_length=MAX_NOTE)]
After = Annotated[int | None, Query(ge=1, lt=2**63)]


class Which(StrEnum):
    OPEN = "open"
    OVERDUE = "overdue"
    ALL = "all"


class Move(StrEnum):
    """The value is the last part of the path of its page."""

    START = "start"
    DONE = "done"
    DROP = "drop"

    @property
    def to(self) -> ItemStatus:
        return {Move.START: ItemStatus.IN_PROGRESS, Move.DONE: ItemStatus.DONE, Move.DROP: ItemStatus.DROPPED}[self]

    @property
    def says(self) -> tuple[str, str, str]:
        """The heading of its page, what follows from it, and what its note is for."""
        return {
            Move.START: ("Start this action item", "It counts as in progress. Its reminders go on.", "What you do about it (optional)"),
            Move.DONE: ("This action item is done", "Its reminders end, and the review shows it as done.", "What was done (optional)"),
            Move.DROP: ("Drop this action item", "Its reminders end. The review keeps it, with your reason.", "Why it need not be done"),
        }[self]


def moves(status: ItemStatus) -> list[Move]:
    """What may be said of an item that stands so."""
    if not status.is_open:
        return [Move.START]
    return [move for move in Move if move.to is not status]


def add(routes: APIRouter, world: World) -> None:
    @routes.get("/actions")
    def list_items(request: Request, visitor: ListReader, show: Which = Which.OPEN, after: After = None) -> Response:
        now, limits = world.now(), visitor.who.limits.models
        due = now if show is Which.OVERDUE else None
        with world.transaction() as conn:
            found = items.find(conn, only_open=show is not Which.ALL, due_before=due, after=after, models=limits, limit=ON_A_PAGE + 1)
        shown = found[:ON_A_PAGE]
        return rendering.page(
            request,
            visitor,
            "actions.html.j2",
            found=shown,
            show=show,
            choices=list(Which),
            more=f"/actions?show={show}&after={shown[-1].id}" if len(found) > ON_A_PAGE else "",
            is_first=after is None,
            role_words=Role.named,
            moves=moves,
            now=now,
            clock=words.clock,
        )

    @routes.get("/actions/{item}/{move}")
    def second_look(request: Request, visitor: Operator, item_id: ItemId, move: Move) -> Response:
        return _second_look(request, visitor, item_id, move)

    @routes.post("/actions/{item}/{move}")
    def move_item(request: Request, visitor: Operator, item_id: ItemId, move: Move, note: Note = "") -> Response:
        said = clean(note, MAX_NOTE)
        try:
            with world.transaction() as conn:
                action_items.move(conn, world.policy, item_id, move.to, by=visitor.who.name, note=said, now=world.now())
        except Invalid as error:
            return _second_look(request, visitor, item_id, move, wrong=str(error))
        return RedirectResponse(f"/actions?show={Which.OPEN if move.to.is_open else Which.ALL}#item-{item_id}", 303)

    def _second_look(request: Request, visitor: Visitor, item_id: int, move: Move, *, wrong: str = "") -> Response:
        with world.transaction() as conn:
            item = items.get(conn, item_id)
        title, follows, about = move.says
        return rendering.page(
            request,
            visitor,
            "action.html.j2",
            status=422 if wrong else 200,
            item=item,
            now=world.now(),
            role_words=Role.named,
            title=title,
            follows=follows,
            about=about,
            needed=move is Move.DROP,
            wrong=wrong,
        )
