"""`POST /webhooks/{format}`: prove the sender, read the message, store all of it, answer 202.

What a trusted sender sent is never lost: an alert we can use goes into `mlrunbook.response.lifecycle.alert_intake`, and anything else is
quarantined.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar
from fastapi import APIRouter, Depends, HTTPException, Request

from mlrunbook.base import web
from mlrunbook.base.authentication import Door, authentication, edge_of, owner
from mlrunbook.base.edge import NotProven, meter_of
from mlrunbook.base.rates import Rate
from mlrunbook.base.settings import sns_certificates, webhook_secret_name, webhook_secrets
from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.gateway.webhooks import cloudevents_handshake, generic, signatures
from mlrunbook.gateway.webhooks.explaining import is_test, try_out
from mlrunbook.gateway.webhooks.ingest import Receipt, ingest, received
from mlrunbook.gateway.webhooks.parsing import Format
from mlrunbook.response.world import World

LONG_BYTES = 64 << 10
LONG_AT_ONCE, SHORT_AT_ONCE = 2, 8
_OF_LONG, _OF_SHORT = RunVar[CapacityLimiter]("long messages"), RunVar[CapacityLimiter]("short messages")
PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"description": "The sender is not proven"},
    403: {"description": "The token lacks the scope alerts, or is limited to other senders or models"},
    413: {"description": "The body is too large"},
    415: {"description": "The body is compressed"},
    503: {"description": "The store is away, or there is too much to do: send it again after Retry-After seconds"},
}


async def raw(request: Request) -> bytes:
    return await request.body()


Body = Annotated[bytes, Depends(raw)]


def sender_of(world: World, form: Format) -> Callable[[Request], Awaitable[Identity]]:
    """A dependency: who sent this. By the format's own proof, else by a token of ours, which every format may use; else 401.

    What proves itself in the headers is asked first: a body is read for nobody but a sender who says that it is signed.
    """

    def signed(request: Request, body: bytes = b"") -> signatures.Signed:
        secrets, intake = webhook_secrets(_named(form, request).source), world.policy.intake
        certificates = sns_certificates() if signatures.SNS_HEADER in request.headers else ()
        return signatures.Signed(request.headers, body, secrets, world.now(), intake.replay_window_s, certificates, intake.sns_topics)

    async def with_secret(request: Request, who: Identity, over_body: tuple[str, ...]) -> Identity:
        """Let in by a token; what is signed beside it proves more, and what is signed wrongly takes nothing away."""
        meter_of(request).prove()
        message = signed(request, await request.body())
        return replace(who, secret=signatures.proving(over_body, message))

    async def prove(request: Request) -> Identity:
        in_headers, over_body = signatures.proofs_of(form.name)
        if signatures.prove(in_headers, message := signed(request)) is None:
            return _of_format(_named(form, request), signatures.proving(in_headers, message))
        claimed = [name for name in over_body if name in request.headers]
        variable = webhook_secret_name(_named(form, request).source)
        try:
            who = await owner(_with_token(request, form), Scope.ALERTS, basic=True)
            return await with_secret(request, who, over_body) if claimed else who
        except HTTPException as error:
            if error.status_code != 401:
                raise
            if not claimed:
                raise HTTPException(401, f"{error.detail}. {signatures.takes(form.name, variable)}", error.headers) from error
            challenge = error.headers
        edge_of(request).check_failures(request)
        known = signed(request)
        message = replace(known, body=await request.body()) if any(signatures.keys(name, known) for name in claimed) else known
        why = signatures.prove(over_body, message)
        if why is None:
            return _of_format(_named(form, request), signatures.proving(over_body, message))
        said = f"{claimed[0]} does not prove the sender: {signatures.needed(claimed[0], variable)}, and both clocks right"
        raise NotProven(f"{said}. {signatures.takes(form.name, variable)}", challenge, why=why)

    return authentication(prove, Door(Scope.ALERTS, sender=form.name, model_in_body=True))


def _named(form: Format, request: Request) -> Format:
    """The mapping that the address names, where it does."""
    mapping = request.path_params.get("name")
    return generic.format_of(mapping) if mapping else form


def _of_format(form: Format, secret: str) -> Identity:
    return Identity("", form.source, None, frozenset({Scope.ALERTS}), secret=secret)


def _with_token(request: Request, form: Format) -> Request:
    if form.token_in_query and "authorization" not in request.headers and (token := request.query_params.get("access_token")):
        given = (b"authorization", f"Bearer {token}".encode("latin-1", "replace"))
        return Request({**request.scope, "headers": [*request.scope["headers"], given]})
    return request


def workers(body: bytes) -> CapacityLimiter:
    """Whoever sends much at once waits for others that do, and not in a thread: the other requests keep theirs."""
    kind, most = (_OF_LONG, LONG_AT_ONCE) if len(body) > LONG_BYTES else (_OF_SHORT, SHORT_AT_ONCE)
    try:
        return kind.get()
    except LookupError:
        kind.set(limiter := CapacityLimiter(most))
        return limiter


async def taken_in(world: World, form: Format, request: Request, body: bytes, sender: Identity) -> Receipt:
    def take_in() -> Receipt:
        message = received(body, request.headers, world)
        if is_test(request.headers, message.at, world.policy.intake.replay_window_s):
            return try_out(world, form, message, sender=sender)
        return ingest(world, form, message, body, sender=sender)

    return await to_thread.run_sync(take_in, limiter=workers(body))


def router(world: World, form: Format) -> APIRouter:
    """The endpoint of one format."""
    routes = web.router(tags=["webhooks"])
    proven = Depends(sender_of(world, form))
    content = {media_type: {"schema": {"type": "object"}} for media_type in form.media_types}
    pace = Rate(world.policy.intake.cloudevents_per_min) if form.is_paced else None
    problems = PROBLEMS | {
        415: {"description": "Another content type, or the body is compressed"},
        429: {"description": "Too many a minute: wait for Retry-After seconds"},
    }

    how: dict[str, Any] = {
        "status_code": 202,
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
        "response_model_exclude_none": True,
    }

    @routes.post(f"/webhooks/{form.name}", operation_id=f"receive_{form.name}", responses=problems if pace else PROBLEMS, **how)
    async def receive(request: Request, body: Body, sender: Identity = proven) -> Receipt:
        """Take in one message. The format's own proof, a bearer token, or HTTP basic with the token as password."""
        if not form.accepts(request.headers):
            raise HTTPException(415, f"send Content-Type {' or '.join(form.media_types[:2])}, or the event's attributes as ce- headers")
        if pace and (wait_s := pace.wait_s(sender.key)) is not None:
            raise HTTPException(429, "too many messages a minute", {"Retry-After": str(math.ceil(wait_s))})

        return await taken_in(world, form, request, body, sender)

    if form.name == generic.FORMAT.name:

        @routes.post(
            "/webhooks/generic/{name}",
            operation_id="receive_generic_by_mapping",
            responses=PROBLEMS | {404: {"description": "Policy has no mapping of this name"}},
            **how,
        )
        async def receive_by_mapping(name: str, request: Request, body: Body, sender: Identity = proven) -> Receipt:
            """Take in one message that is read by the mapping of this name in `intake.generic` of the policy."""
            if name not in world.policy.intake.generic:
                known = ", ".join(world.policy.intake.generic)
                raise HTTPException(404, f"intake.generic of the policy has no mapping {name[:50]!r}; known: {known}")
            return await taken_in(world, generic.format_of(name), request, body, sender)

    if form.is_paced:
        routes.include_router(cloudevents_handshake.handshake(f"/webhooks/{form.name}", world.policy.intake.cloudevents_per_min))
    return routes
