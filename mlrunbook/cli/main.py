"""`mlrunbook`: the command line."""

from __future__ import annotations

import os
from importlib.metadata import version as version_of
from typing import Annotated

import typer

from mlrunbook.base import secret_files
from mlrunbook.cli import (
    actions,
    audit,
    backtest,
    backup,
    channel,
    connect,
    database,
    doctor,
    incidents,
    login,
    modes,
    platform_contract,
    policy,
    quarantine,
    response,
    runbook,
    services,
    train,
    webhook,
)
from mlrunbook.cli.errors import OneLineErrors

app = typer.Typer(
    cls=OneLineErrors,
    name="mlrunbook",
    help="The ML incident-response runbook: triage, contain, investigate, resolve, tell people, review.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"mlrunbook {version_of('mlrunbook')}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Say the version.")] = False,
) -> None:
    os.environ.update(secret_files.read(os.environ))


app.command()(services.up)
app.command()(services.demo)
app.command()(services.gameday)
app.command()(login.login)
app.command()(incidents.report)
incidents.app.command()(response.severity)
incidents.app.command()(response.contain)
incidents.app.command()(response.handover)
incidents.app.command()(response.silenced)
incidents.app.command("resume-automation")(response.resume_automation)
incidents.app.command("go-on", hidden=True)(response.resume_automation)  # its name until 0.1
app.add_typer(incidents.app, name="incidents")
app.add_typer(actions.app, name="actions")
app.add_typer(quarantine.app, name="quarantine")
app.add_typer(webhook.app, name="webhook")
app.add_typer(channel.app, name="channel")
app.add_typer(policy.app, name="policy")
app.add_typer(modes.mode, name="mode")
app.add_typer(modes.observe, name="observe")
app.add_typer(runbook.app, name="runbook")
app.add_typer(audit.app, name="audit")
app.command()(backtest.backtest)
app.command()(connect.connect)
app.command()(doctor.doctor)
app.command("platform-contract")(platform_contract.platform_contract)
app.add_typer(database.token, name="token")
app.command()(train.train)
app.command()(backup.backup)
app.command()(backup.restore)
app.command()(services.deploy)
app.command()(services.worker)
app.add_typer(database.db, name="db")
app.command()(services.gateway)
app.command()(services.platform)


def main() -> None:
    app(prog_name="mlrunbook")
