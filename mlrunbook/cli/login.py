"""`mlrunbook login`: from the token on this machine to a browser on any other."""

from __future__ import annotations

from typing import Annotated

import typer

from mlrunbook.cli.incidents import TokenFile


def login(
    incident: Annotated[str | None, typer.Argument(metavar="[ID]", help="The incident whose page to open, e.g. incident_12.")] = None,
    token_file: TokenFile = None,
) -> None:
    """Print a link that signs a browser in to the console as you: once, within ten minutes. Keep it to yourself: it is you."""
    from mlrunbook.cli.gateway_client import Gateway

    with Gateway(token_file) as gateway:
        made = gateway.sign_in_link(f"/incidents/{incident}" if incident else "")
    typer.echo("open it within ten minutes; it works once:", err=True)
    typer.echo(made["url"])
