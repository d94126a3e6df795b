"""`python -m mlrunbook.gateway --port 8090`: the gateway and, unless told otherwise, its dispatcher."""

from __future__ import annotations

import argparse
import contextlib
import logging
import socket
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mlrunbook.domain.errors import Invalid, RunbookError

if TYPE_CHECKING:
    from types import FrameType

    import uvicorn
    from fastapi import FastAPI

    from mlrunbook.base.edge import Edge
    from mlrunbook.base.settings import Settings
    from mlrunbook.gateway.console.oidc import Provider


SWITCH_S = 0.001  # a page takes many short steps: at each it may wait this long for a thread that reads a long message (Python: 5 ms)


def serve(host: str = "127.0.0.1", port: int = 8090, *, dispatch: bool = True) -> None:
    """Serve until SIGINT or SIGTERM. Invalid when the port is taken or the settings are incomplete."""
    sys.setswitchinterval(SWITCH_S)
    with _listening(host, port) as listener:
        app = _application(dispatch)
        # uvicorn raises SIGINT anew once it has stopped
        with _taking_mail(app.state.edge), contextlib.suppress(KeyboardInterrupt):
            _server(app).run(sockets=[listener])


def _application(dispatch: bool) -> FastAPI:
    from mlrunbook.base import web
    from mlrunbook.base.settings import settings
    from mlrunbook.bootstrap import dispatching, policy_now, world
    from mlrunbook.gateway.app import MAX_BODY_BYTES, MAX_JSON_PIECES, create_app
    from mlrunbook.gateway.console import router as console
    from mlrunbook.gateway.dispatcher import Dispatcher
    from mlrunbook.gateway.heartbeat import Heartbeat

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    config, outside = settings(), world()
    pages = dispatching(outside) if dispatch else outside
    dispatcher = Dispatcher(pages, every_s=config.dispatch_every_s) if dispatch else None
    app = create_app(
        outside,
        dispatcher=dispatcher,
        heartbeat=Heartbeat(pages, dispatcher, config.heartbeat_url.get_secret_value(), every_s=config.heartbeat_every_s)
        if dispatcher and config.heartbeat_url
        else None,
        prefect_ui_url=config.prefect_api_url.removesuffix("/").removesuffix("/api") if config.prefect_api_url else None,
        public_url=config.public_url,
        limits=web.Limits.of(config, body_bytes=MAX_BODY_BYTES, json_pieces=MAX_JSON_PIECES),
        policy_now=policy_now,
    )
    if provider := _provider(config):
        console.offer(app, provider)
    return app


def _provider(config: Settings) -> Provider | None:
    """Whom people sign in at. Half of its settings are no reason not to start: pages must go out."""
    from mlrunbook.gateway.console.oidc import Provider

    if not config.oidc_issuer:
        return None
    if not config.oidc_client_id or not config.public_url:
        missing = "MLRUNBOOK_PUBLIC_URL" if config.oidc_client_id else "MLRUNBOOK_OIDC_CLIENT_ID"
        logging.getLogger(__name__).error("nobody can sign in at %s: set %s too", config.oidc_issuer, missing)
        return None
    secret = config.oidc_client_secret.get_secret_value() if config.oidc_client_secret else None
    return Provider(config.oidc_issuer, config.oidc_client_id, secret, config.public_url)


def _server(app: FastAPI) -> uvicorn.Server:
    import uvicorn

    from mlrunbook.base import http_server

    class Server(uvicorn.Server):
        """Pages that are open on a live incident end their streams first: else each would hold up the stop for as long as it may take."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            app.state.live.stop()
            super().handle_exit(sig, frame)

    how = http_server.options()
    return Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5, **how))


@contextlib.contextmanager
def _taking_mail(edge: Edge) -> Iterator[None]:
    """Alerts by mail, where MLRUNBOOK_SMTP_PORT says so."""
    from mlrunbook.base.settings import settings

    config = settings()
    if config.smtp_port is None:
        yield
        return
    from mlrunbook.bootstrap import world
    from mlrunbook.gateway.webhooks.mail import Mailbox

    mailbox = Mailbox(world(), config.smtp_host, config.smtp_port, edge)
    mailbox.start()
    try:
        yield
    finally:
        mailbox.stop()


def _listening(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=128)
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) else "a port is 0 to 65535"
        raise Invalid(f"cannot listen on {host}:{port} ({why}): choose another with --port", field="port") from error


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m mlrunbook.gateway", description="Alerts and reports in; pages, runs and answers out.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--no-dispatcher", action="store_true", help="serve HTTP only; another gateway delivers")
    args = parser.parse_args(argv)
    try:
        serve(args.host, args.port, dispatch=not args.no_dispatcher)
    except RunbookError as error:
        print(f"mlrunbook gateway: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
