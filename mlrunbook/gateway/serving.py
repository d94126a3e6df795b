"""The server of the gateway's process: loopback in plain HTTP for the parts of this machine, and where people come from, TLS."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import uvicorn

from mlrunbook.base import certificate, http_server, listen
from mlrunbook.base.listen import Listen
from mlrunbook.domain.errors import Invalid

log = logging.getLogger(__name__)

RENEWAL_LOOK_S = 60.0
STOP_S = 5


class Server(uvicorn.Server):
    """Pages that are open on a live incident end their streams first (`before_exit`): else each would hold up the stop for as long as it
    may take. With `public`, that address is served too; its certificate is read anew when its file changes."""

    def __init__(self, config: uvicorn.Config, *, before_exit: Callable[[], None], public: Listen | None = None) -> None:
        super().__init__(config)
        self._before_exit, self._public = before_exit, public
        self._socket = listen.bound(public) if public else None
        self._renewal: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._before_exit()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._public is None or self._socket is None:
            return
        tls, public = None, self._public
        if public.cert and public.key:
            tls = certificate.context(public.cert, public.key, now=datetime.now(UTC))
            self._renewal = asyncio.create_task(_keep_new(tls, public.cert, public.key))
        limit_s = http_server.HEADERS_S if tls else None
        serving = await asyncio.get_running_loop().create_server(self._protocol, sock=self._socket, ssl=tls, ssl_handshake_timeout=limit_s)
        self.servers.append(serving)

    def _protocol(self) -> asyncio.Protocol:
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made


def server(app: object, *, before_exit: Callable[[], None], public: Listen | None, proxies: tuple[str, ...]) -> Server:
    """`proxies`: whose X-Forwarded-For and X-Forwarded-Proto are believed, besides those of this machine. Invalid: `public` is taken."""
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=STOP_S,
        forwarded_allow_ips=["127.0.0.1", "::1", *proxies],
        **http_server.options(),
    )
    return Server(config, before_exit=before_exit, public=public)


async def _keep_new(tls: ssl.SSLContext, cert: Path, key: Path) -> None:
    """A certificate that somebody renewed serves within a minute; one that is wrong is said, and the one before stays."""
    seen = _changed(cert, key)
    while True:
        await asyncio.sleep(RENEWAL_LOOK_S)
        if (now := _changed(cert, key)) == seen:
            continue
        seen = now
        try:
            certificate.context(cert, key, now=datetime.now(UTC))  # a pair that is none must not replace half of the one at work
            certificate.load(tls, cert, key, now=datetime.now(UTC))
            log.info("the certificate %s was renewed", cert)
        except Invalid as error:
            log.error("the certificate stays the one of before: %s", error)


def _changed(*files: Path) -> tuple[float, ...]:
    try:
        return tuple(file.stat().st_mtime for file in files)
    except OSError:
        return ()
