"""`mlrunbook webhook ...`: is the way from an alert's sender to the gateway open?"""

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


@app.command("test")
def try_(
    format: Annotated[FormatName, typer.Option("--format", help="Whose message to send.")],
    model: Annotated[str, typer.Option("--model", help="The model it is about.")] = "predictive_maintenance",
    firing: Annotated[bool, typer.Option("--firing", help="A firing alert: opens an incident and pages people.")] = False,
    token_file: TokenFile = None,
    json: AsJson = False,
) -> None:
    """Post a sample to the running gateway and print the receipt. It is resolved, so it opens nothing.

    Signed with the first secret of MLRUNBOOK_WEBHOOK_SECRET_<FORMAT> where that is set, else with your token.
    """
    from mlrunbook.base.settings import webhook_secrets
    from mlrunbook.gateway.webhooks import samples

    now, secrets = datetime.now(UTC), webhook_secrets(format)
    body = json_module.dumps(samples.sample(format, model, now=now, firing=firing)).encode()
    headers = {"Content-Type": samples.content_type(format)} | (samples.proof(format, secrets[0], body, now) if secrets else {})
    with connect(token_file) as gateway:
        receipt = gateway.webhook(format, body, headers, signed=bool(secrets))
    if json:
        render.as_json(receipt)
        return
    typer.echo(f"sent to /webhooks/{format}, proven by {'the secret' if secrets else 'your token'}")
    typer.echo(render.receipt(receipt))
