"""`python -m mlrunbook.gateway --port 8090`: the gateway and, unless told otherwise, its dispatcher."""

from __future__ import annotations

import argparse
import contextlib
import logging
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlrunbook.base import listen
from mlrunbook.domain.errors import Invalid, RunbookError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from mlrunbook.base.edge import Edge
    from mlrunbook.base.listen import Listen
    from mlrunbook.base.settings import Settings
    from mlrunbook.gateway.console.oidc import Provider


Proxies = tuple[str, ...]
SWITCH_S = 0.001  # a page takes many short steps: at each it may wait this long for a thread that reads a long message (Python: 5 ms)


def serve(host: str = "127.0.0.1", port: int = 8090, *, dispatch: bool = True, public: Listen | None = None, proxies: Proxies = ()) -> None:
    """Serve until SIGINT or SIGTERM. Invalid when the port is taken or the settings are incomplete. `public`: an address to serve besides;
    `proxies`: the networks of those in front."""
    sys.setswitchinterval(SWITCH_S)
    with _listening(host, port) as listener:
        app = _application(dispatch)
        from mlrunbook.gateway import serving

        server = serving.server(app, before_exit=lambda: app.state.live.stop(), public=public, proxies=proxies)
        # uvicorn raises SIGINT anew once it has stopped
        with _taking_mail(app.state.edge), contextlib.suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


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
        prefect_ui_url=config.prefect_ui,
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
    parser.add_argument("--listen", metavar="ADDRESS[:PORT]", help="serve this address too, with TLS or behind a proxy")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="its certificate, with the chain, in PEM")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="the certificate's key, in PEM")
    parser.add_argument("--behind-proxy", default="", metavar="ADDRESSES", help="the proxy in front, whose X-Forwarded-* is believed")
    args = parser.parse_args(argv)
    try:
        proxies = listen.networks(args.behind_proxy)
        public = listen.listen(args.listen, args.tls_cert, args.tls_key, proxies)
        serve(args.host, args.port, dispatch=not args.no_dispatcher, public=public, proxies=proxies)
    except RunbookError as error:
        print(f"mlrunbook gateway: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
