"""uvicorn with deadlines: whoever sends slowly or says nothing is sent away, and does not use up the descriptors that pages need.

server = uvicorn.Server(uvicorn.Config(app, **http_server.options()))
"""

from __future__ import annotations

import asyncio
import logging
import resource
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from mlrunbook.base.rates import Rate

HEADERS_S = 10.0  # from the connection, or the first byte of a further request, to the end of its headers
BODY_S = 30.0
MAX_HEADER_BYTES = 64 << 10
MAX_CONNECTIONS = 1_000
MOST_PIPELINED = 8  # requests of one connection that wait for their turn; clients of today send none before the answer
PEER = "mlrunbook.peer"  # where in the ASGI scope the other end of the connection is; `client` may come from X-Forwarded-For
WARNINGS_A_MIN = 6  # of each kind


def options() -> dict[str, Any]:
    """For `uvicorn.Config`."""
    logging.getLogger("uvicorn.error").addFilter(_few)
    return {"http": Protocol, "ws": "none", "limit_concurrency": _most_connections() + 1}


def _most_connections() -> int:
    """Half of the descriptors the process may have: the rest are for the store, files and what goes out."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(10, min(MAX_CONNECTIONS, soft // 2))


class _FewWarnings(logging.Filter):
    """uvicorn warns of each request that is none, from whomever: a flood of them must not fill the disk. Errors all pass."""

    def __init__(self) -> None:
        super().__init__()
        self._lines, self._left_out = Rate(WARNINGS_A_MIN), 0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        if self._lines.wait_s(str(record.msg)) is not None:
            self._left_out += 1
            return False
        if self._left_out:
            record.msg, record.args = f"{record.getMessage()} ({self._left_out} more warnings were not logged)", ()
            self._left_out = 0
        return True


_few = _FewWarnings()


class TooManyAtOnce(Exception):
    """Requests that wait on one connection for the answers of those before them."""


class Protocol(HttpToolsProtocol):
    """A deadline for headers and one for the body, a cap on headers and on what waits, and room for newcomers: the connection that has
    waited longest for the rest of a request makes place for them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._most = _most_connections()
        self._deadline: asyncio.TimerHandle | None = None
        self._since = self.loop.time()
        self._in_headers, self._header_bytes = True, 0
        self._cycles: list[RequestResponseCycle] = []  # not answered; uvicorn itself knows the newest alone

    @property
    def awaits_request(self) -> bool:
        """Whether it is the client's turn: nothing of a whole request is being worked on."""
        return self._deadline is not None or self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm(HEADERS_S)
        self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._end_cycles()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._header_bytes += len(data) if self._in_headers else 0
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._header_bytes > MAX_HEADER_BYTES and (self._in_headers or self._in_trailers):
            self._leave(b"431 Request Header Fields Too Large")
        elif self._deadline is None and self.timeout_keep_alive_task is None and self.awaits_request:
            self._arm(HEADERS_S)  # blank lines between requests begin none, and would keep the connection for ever

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MOST_PIPELINED:  # a quarter of a MiB holds thousands, and each costs a place in memory and a turn
            self._disarm()
            self._end_cycles()
            self.transport.abort()
            raise TooManyAtOnce  # so that the parser reads no further
        super().on_message_begin()
        self.scope[PEER] = self.client  # type: ignore[literal-required]
        if not self._in_headers:
            self._in_headers, self._header_bytes = True, 0
            self._arm(HEADERS_S)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_headers:
            super().on_header(name, value)
        else:  # a trailer, which nobody reads: not kept
            self._header_bytes += len(name) + len(value)

    def on_headers_complete(self) -> None:
        self._in_headers, self._header_bytes = False, 0
        self._arm(BODY_S)
        super().on_headers_complete()
        self._cycles = [*(one for one in self._cycles if not one.response_complete), self.cycle]

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def on_message_complete(self) -> None:
        self._disarm()
        super().on_message_complete()

    @property
    def _in_trailers(self) -> bool:
        return not self._in_headers and self._deadline is not None

    def _end_cycles(self) -> None:
        """Whoever still answers one must not write to a connection that is gone: that would be a traceback in the log for each."""
        for one in self._cycles:
            one.disconnected = True
            one.message_event.set()
        self._cycles = []

    def _make_room(self) -> None:
        if len(self.connections) <= self._most:
            return
        others = (one for one in self.connections if isinstance(one, Protocol) and one is not self and not one.transport.is_closing())
        waiting = min((one for one in others if one.awaits_request), key=lambda one: one._since, default=None)
        if waiting is not None:
            waiting.transport.abort()
            self.connections.discard(waiting)  # its end is heard of later: until then it must not count against `limit_concurrency`

    def _arm(self, after_s: float) -> None:
        self._disarm()
        self._since = self.loop.time()
        self._deadline = self.loop.call_later(after_s, self._leave, b"408 Request Timeout")

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _leave(self, status: bytes) -> None:
        """Say why, unless an answer is on its way, and close."""
        self._disarm()
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        self.transport.close()
