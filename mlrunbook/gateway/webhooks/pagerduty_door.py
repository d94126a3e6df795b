"""`POST /webhooks/pagerduty-events`: the door of PagerDuty's Events API v2, with a token of ours as the routing key.

A client that takes a base URL in place of https://events.pagerduty.com finds its paths below. It is answered as PagerDuty answers, also
where it is refused: https://developer.pagerduty.com/docs/events-api-v2-overview#response-codes--retry-logic
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

from anyio import to_thread
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import Response

from mlrunbook.base import web
from mlrunbook.base.authentication import AuthenticatedRoute, Door, authentication, edge_of, holder, owner
from mlrunbook.base.edge import RETRY_AFTER_S, json_pieces, meter_of
from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.domain.errors import NotApproved, RunbookError, Transient
from mlrunbook.gateway.webhooks import pagerduty, pagerduty_events
from mlrunbook.gateway.webhooks.ingest import Tried
from mlrunbook.gateway.webhooks.router import taken_in, workers
from mlrunbook.response.world import World

PATH = "/webhooks/pagerduty-events"
ENQUEUE, CHANGE = "/v2/enqueue", "/v2/change/enqueue"
MAX_BODY_BYTES = 512 << 10  # PagerDuty's own limit: it must be read before its sender is known
MAX_PIECES = 20_000
HIDDEN = "[routing key]"
INVALID = "Event object is invalid"
READ_BEFORE = "mlrunbook.event"  # where in the ASGI scope the event is, once read


class Answer(BaseModel):
    """`dedup_key` only of alerts; `test` only of a test of ours."""

    status: str
    message: str
    dedup_key: str | None = None
    test: list[Tried] | None = None


class Refusal(BaseModel):
    status: str
    message: str
    errors: list[str]
    detail: str = Field(description="The same as everywhere here")


@dataclass(frozen=True)
class Event:
    """What came in; `key` is its routing key, and in `sent` it is no more."""

    sent: Any
    key: str


async def _event(request: Request) -> Event:
    """Read once. 413 above PagerDuty's limit, 400 where it is no JSON object."""
    if READ_BEFORE not in request.scope:
        meter_of(request).confine(MAX_BODY_BYTES)
        body = await request.body()
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"the event is larger than {MAX_BODY_BYTES} bytes")
        request.scope[READ_BEFORE] = await to_thread.run_sync(_parsed, body, limiter=workers(body))
    event: Event = request.scope[READ_BEFORE]
    return event


def _parsed(body: bytes) -> Event:
    try:
        sent = json.loads(body) if json_pieces(body) <= MAX_PIECES else None
    except (ValueError, RecursionError):
        sent = None
    if not isinstance(sent, dict):
        return Event(None, "")
    key = sent.get("routing_key")
    return Event(pagerduty_events.public(sent), key.strip() if isinstance(key, str) else "")


async def _prove(request: Request) -> Identity:
    """By the routing key in the event, or by the token in the header as everywhere."""
    if request.headers.get("authorization"):
        return await owner(request, Scope.ALERTS, basic=True)
    edge_of(request).check_failures(request)
    event = await _event(request)
    if not event.key:
        raise HTTPException(401, "'routing_key' is missing or blank: it is a token of mlrunbook of scope alerts (`mlrunbook token create`)")
    return await holder(request, event.key, Scope.ALERTS)


class _AnsweredAsPagerDuty(AuthenticatedRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except HTTPException as error:
                return _refused(error.status_code, str(error.detail), headers=error.headers)
            except NotApproved as error:
                return _refused(403, str(error))
            except Transient as error:
                return _refused(503, str(error), headers={"Retry-After": str(RETRY_AFTER_S)})
            except RunbookError as error:
                return _refused(web.problem_of(error).status_code, str(error))

        return answer


def _refused(status: int, *errors: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    said = {"status": "invalid event" if status < 500 else "error", "message": INVALID if status == 400 else HTTPStatus(status).phrase}
    return JSONResponse(said | {"errors": list(errors), "detail": "; ".join(errors)}, status, headers)


def _documented(description: str) -> dict[str, Any]:
    return {"model": Refusal, "description": description}


REFUSALS: dict[int | str, dict[str, Any]] = {
    400: _documented("The event is not one that PagerDuty takes"),
    401: _documented("The routing key is no token of ours"),
    403: _documented("The token lacks the scope alerts, or is limited to other senders or models"),
    413: _documented("The event is larger than 512 KiB"),
    503: _documented("The store is away, or there is too much to do: send it again after Retry-After seconds"),
}


def _faults_of_change(sent: Any) -> list[str]:
    said = sent.get("payload")
    if not isinstance(said, dict) or not isinstance(said.get("summary"), str) or not said["summary"].strip():
        return ["'payload.summary' is missing or blank"]
    return []


class _Kind(NamedTuple):
    """What an event may be."""

    done: str
    faults: Callable[[Any], list[str]]
    key_of: Callable[[Any], str]


ALERT = _Kind("Event processed", pagerduty_events.faults, pagerduty_events.dedup_key)
CHANGED = _Kind("Change event processed", _faults_of_change, lambda _: "")


def router(world: World) -> APIRouter:
    routes = APIRouter(route_class=_AnsweredAsPagerDuty, tags=["webhooks"])
    proven = Depends(authentication(_prove, Door(Scope.ALERTS, sender=pagerduty.FORMAT.name, model_in_body=True)))
    body = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}

    async def take(request: Request, sender: Identity, kind: _Kind) -> Answer | JSONResponse:
        event = await _event(request)
        if event.sent is None:
            return _refused(400, f"the event is no JSON object, or has more than {MAX_PIECES} values")
        if found := kind.faults(event.sent):
            return _refused(400, *found)
        key = event.key or request.headers.get("authorization", "").partition(" ")[2]
        receipt = await taken_in(world, pagerduty.FORMAT, request, _without(event.sent, key), sender)
        said = kind.done
        if receipt.quarantined:
            said += ". It cannot be used yet and waits: mlrunbook quarantine list"
        elif receipt.test is not None:
            said += ". It was only a test: nothing of it is kept"
        return Answer(status="success", message=said, dedup_key=kind.key_of(event.sent) or None, test=receipt.test)

    how: dict[str, Any] = {"status_code": 202, "response_model": Answer, "response_model_exclude_none": True, "responses": REFUSALS}

    @routes.post(PATH, operation_id="receive_pagerduty_event", openapi_extra=body, **how)
    @routes.post(PATH + ENQUEUE, operation_id="enqueue_pagerduty_event", openapi_extra=body, **how)
    async def enqueue(request: Request, sender: Identity = proven) -> Any:
        """Take in one alert event: trigger, acknowledge or resolve."""
        return await take(request, sender, ALERT)

    @routes.post(PATH + CHANGE, operation_id="enqueue_pagerduty_change", openapi_extra=body, **how)
    async def enqueue_change(request: Request, sender: Identity = proven) -> Any:
        """Take in one change event."""
        return await take(request, sender, CHANGED)

    return routes


def _without(sent: Any, key: str) -> bytes:
    """The event as it may be kept, wherever in it the key stands."""
    whole = json.dumps(sent)
    return (whole.replace(key, HIDDEN) if len(key) >= 8 else whole).encode()
