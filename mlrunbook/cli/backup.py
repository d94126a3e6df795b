"""`mlrunbook backup` and `mlrunbook restore`: the data folder of `mlrunbook up` in one file, and back."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from mlrunbook.cli import render, target

Home = Annotated[Path | None, typer.Option("--home", help="Data folder; default MLRUNBOOK_DATA_DIR, else ~/.local/share/mlrunbook.")]


def backup(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write it; nothing is overwritten.")],
    home: Home = None,
) -> None:
    """Back up the data folder: incidents, tokens, models, features, serving state. The stack may run meanwhile."""
    from mlrunbook.local.backup import back_up

    contents = back_up(home or target.data_dir(), out, now=datetime.now(UTC))
    typer.echo(render.plain(f"{out}: {contents.words}; read back and whole"))
    typer.echo("It holds secrets: only you may read it. Not in it: the checkout with its policy, and your environment (channel addresses).")


def restore(
    archive: Annotated[Path, typer.Argument(metavar="FILE", help="As `mlrunbook backup` wrote it.")],
    home: Home = None,
) -> None:
    """Make a new data folder out of a backup. Stop the stack that it is of first: two would page and act side by side."""
    from mlrunbook.cli.policy import in_force
    from mlrunbook.local.backup import restore

    into = home or target.data_dir()
    contents = restore(archive, into, in_force(), now=datetime.now(UTC))
    typer.echo(render.plain(f"{into}: {contents.words}, as of {contents.made_at:%Y-%m-%d %H:%M:%S} UTC"))
    for one in contents.altered:
        said = f"warning: the timeline of {one} was changed after it was written: mlrunbook incidents verify {one}"
        typer.secho(render.plain(said), fg="yellow", err=True)
    if contents.open:
        typer.echo("On-call is paged about each open incident; what a person approved and was not carried out needs a new approval.")
    typer.echo(render.plain(f"Start it: mlrunbook up --home {into}"))
