"""`mlrunbook webhook ...`: is the way from an alert's sender to the gateway open, and how is a message read?"""

from __future__ import annotations

import json as json_module
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated

import typer

from mlrunbook.cli import render
from mlrunbook.cli.incidents import AsJson, TokenFile, connect

app = typer.Typer(no_args_is_help=True, help="Try the webhooks that alerts come in by.")


class FormatName(StrEnum):
    """Those of `mlrunbook/gateway/webhooks/registry.py`; a test compares them."""

    ALERTMANAGER = "alertmanager"
    GRAFANA = "grafana"
    DATADOG = "datadog"
    PAGERDUTY = "pagerduty"
    OPSGENIE = "opsgenie"
    CLOUDEVENTS = "cloudevents"
    MLFLOW = "mlflow"
    GENERIC = "generic"


AnyFormat = StrEnum("AnyFormat", {one.name: one.value for one in FormatName} | {"EMAIL": "email", "MAIL": "mail"})  # type: ignore[misc]


@app.command("test")
def try_(
    format: Annotated[FormatName, typer.Option("--format", help="Whose message to send.")],
    model: Annotated[str, typer.Option("--model", help="The model it is about.")] = "predictive_maintenance",
    firing: Annotated[
        bool, typer.Option("--firing", help="For real: opens an incident and pages people; mlflow records a change.")
    ] = False,
    token_file: TokenFile = None,
    json: AsJson = False,
) -> None:
    """Post a sample to the running gateway and print the receipt. It is marked as a test: nothing of it is stored.

    Signed with the first secret of MLRUNBOOK_WEBHOOK_SECRET_<FORMAT> where that is set, else with your token.
    """
    from mlrunbook.base.settings import webhook_secrets
    from mlrunbook.gateway.webhooks import samples
    from mlrunbook.gateway.webhooks.explaining import TEST_HEADER

    now, secrets = datetime.now(UTC), webhook_secrets(format)
    body = json_module.dumps(samples.sample(format, model, now=now, firing=firing)).encode()
    headers = {"Content-Type": samples.content_type(format)} | (samples.proof(format, secrets[0], body, now) if secrets else {})
    headers |= {} if firing else {TEST_HEADER: f"{now.timestamp():.0f}"}
    with connect(token_file) as gateway:
        receipt = gateway.webhook(format, body, headers, signed=bool(secrets))
    if json:
        render.as_json(receipt)
        return
    typer.echo(f"sent to /webhooks/{format}, proven by {'the secret' if secrets else 'your token'}")
    if firing:
        typer.echo(f"for real: {render.receipt(receipt)}")
    elif receipt.get("test") is None:
        typer.echo(f"this gateway is older and knows no tests, so it took it for real: {render.receipt(receipt)}")
    else:
        typer.echo("test: nothing was opened, ended or recorded")
        for told in receipt["test"]:
            happens = told.get("happens")
            why = (
                f"for real it {happens}"
                if happens
                else "only a token of scope read sees why; `mlrunbook webhook explain` shows it for a file"
            )
            render.console().print(render.verdict_row(told["outcome"], why))


@app.command()
def explain(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The message as its sender writes it; '-' reads standard input.")],
    format: Annotated[AnyFormat, typer.Option("--format", help="Whose message it is; mail: with its header.")],
    mapping: Annotated[str, typer.Option("--mapping", metavar="NAME", help="Of `intake.generic`, with --format generic.")] = "",
    header: Annotated[list[str] | None, typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="As the sender sends it.")] = None,
    json: AsJson = False,
) -> None:
    """Show how a message is read by the policy as it is now, and what it would do. Needs no gateway and no store, and stores nothing.

    Exit code 1 where any part of it would go into the quarantine.
    """
    from mlrunbook.cli import explaining

    read_as = explaining.format_named(str(format), mapping)
    found = explaining.explain(read_as, explaining.message_in(file), explaining.headers_of(header or []))
    if json:
        render.as_json(found)
    else:
        for part in explaining.page(found):
            render.console().print(part)
    if any(part["outcome"] == "quarantine" for part in found["parts"]):
        raise typer.Exit(1)
