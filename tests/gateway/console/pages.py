"""Pages of a test's own: one for each thing that a page of the console may ask of its visitor."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import PlainTextResponse

from mlrunbook.gateway.console.route import router
from mlrunbook.gateway.console.visitor import Approver, FreshApprover, Operator, Reader, Visitor, is_still_signed_in, look_up


def pages(done: list[str]) -> APIRouter:
    """What was really done is in `done`."""
    routes = router()

    @routes.get("/try/read")
    def read(visitor: Reader) -> Response:
        who = visitor.who
        return PlainTextResponse(f"{who.name}|{who.person}|{who.role}|{' '.join(sorted(who.scopes))}|{visitor.is_fresh}")

    @routes.post("/try/operate")
    def operate(visitor: Operator, what: Annotated[str, Form()] = "it") -> Response:
        done.append(f"{visitor.who.name} did {what}")
        return PlainTextResponse("done")

    @routes.post("/try/approve")
    def approve(visitor: Approver) -> Response:
        done.append(f"{visitor.who.name} approved")
        return PlainTextResponse("done")

    @routes.get("/try/change")
    def second_look(visitor: Reader) -> Response:
        return PlainTextResponse("are you sure?")

    @routes.post("/try/change")
    def change(visitor: FreshApprover) -> Response:
        done.append(f"{visitor.who.name} changed production")
        return PlainTextResponse("done")

    @routes.get("/try/is-still-in")
    async def ask_as_a_stream_does(request: Request) -> Response:
        found = await look_up(request, note_use=False)
        assert found is not None
        visitor = Visitor(found[1], "", found[0].signed_in_at, False)
        return PlainTextResponse(str(await is_still_signed_in(request, visitor)))

    @routes.get("/try/models/{model}")
    def of_model(model: str, visitor: Reader) -> Response:
        return PlainTextResponse(model)

    return routes
