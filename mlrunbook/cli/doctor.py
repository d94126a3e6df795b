"""`mlrunbook doctor`: what is connected, what is allowed, and what to do about the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from mlrunbook.cli import render, target
from mlrunbook.cli.policy import path_in_force

if TYPE_CHECKING:
    from mlrunbook.base.settings import Settings
    from mlrunbook.diagnostics.doctor import Finding

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    model: Annotated[str, typer.Option("--model", help="The model to look for.")] = "predictive_maintenance",
    json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Check every connection and permission, all at once. Nothing is changed and nothing is sent.

    Exit code: 0 without a failure (warnings allowed), 1 with one, 2 wrong usage.
    """
    found = _findings(model)
    if json:
        render.as_json([vars(finding) | {"level": finding.level.value} for finding in found])
    else:
        for finding in found:
            typer.secho(f"{finding.level.value:<5}", fg=COLOURS[finding.level.value], nl=False)
            typer.echo(render.plain(f"{finding.name}: {finding.said}"))
            if finding.fix:
                typer.echo(render.plain(f"     -> {finding.fix}"))
        counts = {level: sum(f.level.value == level for f in found) for level in COLOURS}
        typer.echo(", ".join(f"{count} {level}" for level, count in counts.items()))
    raise typer.Exit(1 if any(finding.level.value == "fail" for finding in found) else 0)


def _findings(model: str) -> list[Finding]:
    from mlrunbook.diagnostics import everything

    env = target.environment()
    return everything.findings(_settings(env), env, path_in_force(None), model)


def _settings(env: Mapping[str, str]) -> Settings:
    """As a service with this environment would have them."""
    from mlrunbook.base.settings import Settings

    named = {name: str(field.validation_alias or f"MLRUNBOOK_{name.upper()}") for name, field in Settings.model_fields.items()}
    return Settings(**{name: env[variable] for name, variable in named.items() if env.get(variable)})  # type: ignore[arg-type]
