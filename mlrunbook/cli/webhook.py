"""`mlrunbook webhook ...`: is the way from an alert's sender to the gateway open, and how is a message read?"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from mlrunbook.cli import render
from mlrunbook.cli.incidents import AsJson, TokenFile
from mlrunbook.domain.errors import Invalid

app = typer.Typer(no_args_is_help=True, help="Try the webhooks that alerts come in by.")

ALIASES = {"mail": "email"}
WHO_SEES_WHY = "only a token of scope read sees why; `mlrunbook webhook explain` shows it for a file"


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


OTHER_DOORS = {"PAGERDUTY_EVENTS": "pagerduty-events", "EMAIL": "email", "MAIL": "mail"}
AnyFormat = StrEnum("AnyFormat", {one.name: one.value for one in FormatName} | OTHER_DOORS)  # type: ignore[misc]
FORMATS = ", ".join(str(one) for one in AnyFormat if one != "email")
MappingName = Annotated[str, typer.Option("--mapping", metavar="NAME", help="Of `intake.generic`, with --format generic.")]


@app.command("test")
def try_(
    format: Annotated[AnyFormat, typer.Option("--format", metavar="FORMAT", help=f"Whose message to send: {FORMATS}.")],
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="A message of that sender, in place of a sample; '-' reads standard input.")
    ] = None,
    mapping: MappingName = "",
    model: Annotated[str, typer.Option("--model", help="The model that the sample is about.")] = "predictive_maintenance",
    firing: Annotated[
        bool, typer.Option("--firing", help="For real: opens an incident and pages people; mlflow records a change.")
    ] = False,
    token_file: TokenFile = None,
    json: AsJson = False,
) -> None:
    """Send a sample, or a message of yours, to the running gateway and print what would become of it. It is marked as a test: nothing of
    it is stored.

    Signed with the first secret of MLRUNBOOK_WEBHOOK_SECRET_<NAME>, else sent with your token.

    Mail goes to MLRUNBOOK_SMTP_PORT of this machine. With a mapping, give a FILE.
    """
    from mlrunbook.cli import explaining, webhook_test
    from mlrunbook.gateway.webhooks import samples

    now, name = datetime.now(UTC), ALIASES.get(str(format), str(format))
    explaining.format_named(name, mapping)
    if mapping and file is None:
        raise Invalid(f"only you know what a message for {mapping} looks like: give one as FILE", field="file")
    body = explaining.message_in(file) if file is not None else samples.as_sent(name, model, now=now, firing=firing)
    message = webhook_test.Message(name, mapping, body, None if firing else now, now)
    sent = webhook_test.deliver(message, token_file)
    if json:
        render.as_json(sent.answer)
        return
    typer.echo(f"sent to {sent.to}, proven by {sent.proven_by}")
    _show_answer(sent.answer, firing=firing)


def _show_answer(answer: Mapping[str, Any], *, firing: bool) -> None:
    """A receipt, or the words of a door that answers otherwise."""
    said = render.plain(answer["message"]) if "message" in answer else render.receipt(answer)
    if firing:
        typer.echo(f"for real: {said}")
    elif "test" in answer:
        typer.echo("test: nothing was opened, ended or recorded")
        for told in answer["test"]:
            why = f"for real it {happens}" if (happens := told.get("happens")) else WHO_SEES_WHY
            render.console().print(render.verdict_row(told["outcome"], why))
    elif "message" in answer:
        typer.echo(said)
    else:
        typer.echo(f"this gateway is older and knows no tests, so it took it for real: {said}")


@app.command()
def explain(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The message as its sender writes it; '-' reads standard input.")],
    format: Annotated[AnyFormat, typer.Option("--format", metavar="FORMAT", help=f"Whose message it is: {FORMATS} (with its header).")],
    mapping: MappingName = "",
    header: Annotated[list[str] | None, typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="As the sender sends it.")] = None,
    json: AsJson = False,
) -> None:
    """Show how a message is read by the policy as it is now, and what it would do. Needs no gateway and no store, and stores nothing.

    Exit code 1 where any part of it would go into the quarantine.
    """
    from mlrunbook.cli import explaining

    read_as = explaining.format_named(ALIASES.get(str(format), str(format)), mapping)
    found = explaining.explain(read_as, explaining.message_in(file), explaining.headers_of(header or []))
    if json:
        render.as_json(found)
    else:
        for part in explaining.page(found):
            render.console().print(part)
    if any(part["outcome"] == "quarantine" for part in found["parts"]):
        raise typer.Exit(1)
