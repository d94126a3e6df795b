"""What every request passes before the application sees it: rates, a cap on its body, a cap on the bytes of all requests together.

Until the sender is proven (`mlrunbook.base.authentication`), a request may have no more than a small body, out of a small share of its own.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import HTTPException
from prometheus_client import Counter
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as AsgiScope

from mlrunbook.base.rates import Rate
from mlrunbook.base.settings import Settings

log = logging.getLogger(__name__)

METER = "mlrunbook.meter"  # where in the ASGI scope the request's meter is
HEALTH = "/health"  # counted by itself: who floods another door must not make a probe restart the service
DRAINED_BYTES = 64 << 10  # an unread body up to this size is read away, so that the answer arrives; a larger one ends the connection
RETRY_AFTER_S = 5
SLOT_WAIT_S = 10.0
REFUSED = "mlrunbook_refused_requests_total"


@dataclass(frozen=True)
class Limits:
    """What one process takes. `proven`: the sender has shown a token or the secret of its format."""

    body_bytes: int = 1 << 20
    unproven_body_bytes: int = 1 << 20
    in_flight_bytes: int = 32 << 20
    unproven_in_flight_bytes: int = 8 << 20
    json_pieces: int | None = None  # lists, objects and commas of a body that is read on the event loop, where everybody waits for it
    running: int = 24  # of the 40 threads that requests run in: the rest answer /health and /metrics
    per_min_token: int = 6_000
    per_min_address: int = 12_000
    failed_per_min_address: int = 300

    @classmethod
    def of(cls, config: Settings, *, body_bytes: int, json_pieces: int | None = None, times: int = 1) -> Limits:
        """`times`: how many times the rates of the settings, where machines ask for every single thing."""
        return cls(
            body_bytes=body_bytes,
            json_pieces=json_pieces,
            per_min_token=config.requests_per_min_token * times,
            per_min_address=config.requests_per_min_address * times,
            failed_per_min_address=config.failed_logins_per_min_address,
        )


class NotProven(HTTPException):
    """401. `why` is for our log alone: it would tell a stranger what is configured here."""

    def __init__(self, detail: str, headers: Mapping[str, str] | None, *, why: str) -> None:
        super().__init__(401, detail, headers)
        self.why = why


class NothingShown(HTTPException):
    """401 for who came without anything to prove themselves with, as every browser does once: no attempt, and not counted as one."""

    def __init__(self, detail: str) -> None:
        super().__init__(401, detail)


class Edge:
    """The limits of one application, and what it has refused."""

    def __init__(self, limits: Limits, alert_doors: tuple[str, ...] = ()) -> None:
        self.limits, self._alert_doors = limits, alert_doors
        self.proven, self.unproven = Budget(limits.in_flight_bytes), Budget(limits.unproven_in_flight_bytes)
        self.of_token, self.of_address = Rate(limits.per_min_token), Rate(limits.per_min_address)
        self.failures = Rate(limits.failed_per_min_address)
        self.refused = Counter(REFUSED.removesuffix("_total"), "Requests refused at the door, by why", ["reason"], registry=None)
        self._slots = asyncio.Semaphore(limits.running)
        self._lines, self._unlogged = Rate(6), 0

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """One of the places to run in. Taken with the body in hand: who sends slowly holds none."""
        try:
            await asyncio.wait_for(self._slots.acquire(), SLOT_WAIT_S)
        except TimeoutError:
            self.refused.labels("busy").inc()
            raise HTTPException(503, "too many requests are being worked on: try again", {"Retry-After": str(RETRY_AFTER_S)}) from None
        try:
            yield
        finally:
            self._slots.release()

    def too_many(self, path: str, wait_s: float, whose: str) -> HTTPException:
        """503 where alerts come in, because their senders try again after a 5xx alone; 429 elsewhere."""
        self.refused.labels("rate").inc()
        is_alert = self._is_alert_door(path)
        headers = {"Retry-After": str(max(1, math.ceil(wait_s)))}
        return HTTPException(503 if is_alert else 429, f"too many requests a minute {whose}: wait for Retry-After seconds", headers)

    def check_pieces(self, path: str, body: bytes) -> None:
        """413 for a body that would hold up the event loop. At the doors of alerts it is read elsewhere."""
        most = self.limits.json_pieces
        if most is not None and not self._is_alert_door(path) and json_pieces(body) > most:
            self.refused.labels("size").inc()
            raise HTTPException(413, f"the body has more than {most} lists, objects and values: send less at a time")

    def _is_alert_door(self, path: str) -> bool:
        return path.startswith(self._alert_doors) if self._alert_doors else False

    def failed(self, request: Request, error: HTTPException) -> HTTPException:
        """What a request that did not prove its sender, or proved one without the scope, is answered. It is counted and logged."""
        address, door = address_of(request.scope), f"{request.method} {request.url.path}"
        why = error.why if isinstance(error, NotProven) else "no valid token" if error.status_code == 401 else "the token lacks the scope"
        self.note_failure(address, door, why, reason="authentication" if error.status_code == 401 else "scope")
        if error.status_code == 401 and (wait_s := self.failures.wait_s(address)) is not None:
            return self.too_many(request.url.path, wait_s, "without a valid token from this address")
        return error

    def check_failures(self, request: Request) -> None:
        """Before more is done for somebody who is not proven yet than to look at headers."""
        if self.failures.is_spent(address := address_of(request.scope)):
            raise self.failed(request, HTTPException(401, f"too many failed from {address}"))

    def note_failure(self, address: str, door: str, why: str, *, reason: str = "authentication") -> None:
        """Counted, and logged a few times a minute; never with what was presented."""
        self.refused.labels(reason).inc()
        if self._lines.wait_s(address) is not None:
            self._unlogged += 1
            return
        more = f" ({self._unlogged} more like it were not logged)" if self._unlogged else ""
        self._unlogged = 0
        log.warning("refused %.200r from %s: %s%s", door, address, why, more)


def json_pieces(body: bytes) -> int:
    """About how many values JSON text holds, counted without reading it: to read a million of them takes a second or two in which no other
    thread of the process runs. What stands in strings counts too."""
    return body.count(b"[") + body.count(b"{") + body.count(b",")


class Budget:
    """Bytes of requests that are held at the same time. Used on the event loop alone."""

    def __init__(self, total: int) -> None:
        self.left = total

    def take(self, count: int) -> bool:
        if count > self.left:
            return False
        self.left -= count
        return True

    def give_back(self, count: int) -> None:
        self.left += count


class Meter:
    """What one request's body may have, and has."""

    def __init__(self, edge: Edge, headers: dict[bytes, bytes]) -> None:
        self._edge, self._budget, self._limit = edge, edge.unproven, min(edge.limits.unproven_body_bytes, edge.limits.body_bytes)
        self._taken = 0
        given = headers.get(b"content-length", b"")
        self._declared = int(given) if given.isdigit() and len(given) < 20 else None
        self.is_whole = self._declared == 0 or (self._declared is None and b"transfer-encoding" not in headers)

    @property
    def ends_connection(self) -> bool:
        """Whether more of the body is on its way than is worth reading away."""
        return not self.is_whole and (self._declared is None or self._declared > DRAINED_BYTES)

    def prove(self) -> None:
        """The sender is known now: the whole limit holds."""
        if self._budget is self._edge.proven:
            return
        taken, self._taken = self._taken, 0
        self._edge.unproven.give_back(taken)
        self._budget, self._limit = self._edge.proven, self._edge.limits.body_bytes
        self._take(taken)

    def confine(self, limit: int) -> None:
        """No more than that, whoever sends it."""
        self._limit = min(self._limit, limit)
        self.check_declared()

    def note(self, message: Message) -> None:
        """413 or 503 as soon as this is more than there is room for."""
        if message["type"] == "http.request":
            self._take(len(message.get("body", b"")))
            self.is_whole = self.is_whole or not message.get("more_body", False)

    def check_declared(self) -> None:
        if self._declared is not None and self._declared > self._limit:
            raise self._too_large()

    def release(self) -> None:
        self._budget.give_back(self._taken)
        self._taken = 0

    def _take(self, count: int) -> None:
        if self._taken + count > self._limit:
            raise self._too_large()
        if not self._budget.take(count):
            self._edge.refused.labels("busy").inc()
            raise HTTPException(503, "too many bytes are being received: try again", {"Retry-After": str(RETRY_AFTER_S)})
        self._taken += count

    def _too_large(self) -> HTTPException:
        self._edge.refused.labels("size").inc()
        is_small = self._limit == min(self._edge.limits.unproven_body_bytes, self._edge.limits.body_bytes) < self._edge.limits.body_bytes
        signed = "; a message that carries a token in its header may be larger" if is_small else ""
        return HTTPException(413, f"the body is larger than {self._limit} bytes: send less at a time{signed}")


class EdgeMiddleware:
    """Pure ASGI."""

    def __init__(self, app: ASGIApp, *, edge: Edge, refuse: Any) -> None:
        self.app, self._edge, self._refuse = app, edge, refuse

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        meter = scope[METER] = Meter(self._edge, headers)

        async def metered() -> Message:
            meter.check_declared()
            message = await receive()
            meter.note(message)
            return message

        async def answering(message: Message) -> None:
            if message["type"] == "http.response.start" and meter.ends_connection:
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        try:
            self._admit(scope, headers)
            await self.app(scope, metered, answering)
        except HTTPException as error:
            await self._refuse(Request(scope), error)(scope, metered, answering)
        except ClientDisconnect:
            log.debug("a client went away before its request was whole")
        finally:
            meter.release()

    def _admit(self, scope: AsgiScope, headers: dict[bytes, bytes]) -> None:
        path = scope["path"]
        counted = address_of(scope) + (HEALTH if path == HEALTH else "")
        if (wait_s := self._edge.of_address.wait_s(counted)) is not None:
            raise self._edge.too_many(path, wait_s, "from this address")
        if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"identity", b""):
            raise HTTPException(415, "a compressed body is not taken: send it without Content-Encoding", {"Accept-Encoding": "identity"})


def meter_of(request: Request) -> Meter:
    meter: Meter = request.scope[METER]
    return meter


def address_of(scope: AsgiScope) -> str:
    """The client's address; of IPv6 the network, because one host has all of it to pick from."""
    host = (scope.get("client") or ("unknown",))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return str(host)
    if address.version == 4:
        return str(address)
    return str(address.ipv4_mapped or ipaddress.ip_network((address.packed[:8] + bytes(8), 64)))
