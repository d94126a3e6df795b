"""`mlrunbook doctor`: what is connected, what is allowed, and what to do about the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from mlrunbook.cli import render, target
from mlrunbook.cli.policy import path_in_force

if TYPE_CHECKING:
    from mlrunbook.base.settings import Settings
    from mlrunbook.diagnostics.doctor import Finding
    from mlrunbook.diagnostics.models import ModelReport

COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
CAN_COLOURS = {"yes": "green", "person": "yellow", "no": "yellow"}
DEFAULT_MODEL = "predictive_maintenance"


def doctor(
    model: Annotated[str | None, typer.Option("--model", help="The model to look for.")] = None,
    json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Check every connection and permission, all at once. Nothing is changed and nothing is sent.

    Exit code: 0 without a failure (warnings allowed), 1 with one, 2 wrong usage.
    """
    found, models = _findings(model)
    if json:
        lines = [vars(finding) | {"level": finding.level.value} for finding in found]
        render.as_json([*lines, *(line for report in models for line in _lines_of(report))])
    else:
        for finding in found:
            typer.secho(f"{finding.level.value:<5}", fg=COLOURS[finding.level.value], nl=False)
            typer.echo(render.plain(f"{finding.name}: {finding.said}"))
            if finding.fix:
                typer.echo(render.plain(f"     -> {finding.fix}"))
        for report in models:
            _block(report)
        counts = {level: sum(f.level.value == level for f in found) for level in COLOURS}
        typer.echo(", ".join(f"{count} {level}" for level, count in counts.items()))
    raise typer.Exit(1 if any(finding.level.value == "fail" for finding in found) or not all(report.works for report in models) else 0)


def _findings(model: str | None) -> tuple[list[Finding], list[ModelReport]]:
    from mlrunbook.diagnostics import everything

    env = target.environment()
    settings, source = settings_of(env), path_in_force(None)
    models = everything.of_models(settings, env, source, model)
    asked = model or (models[0].model if models else DEFAULT_MODEL)
    return everything.findings(settings, env, source, asked), models


def _block(report: ModelReport) -> None:
    """A model at a glance, at 80 columns."""
    screen, rows = render.console(), render.grid(23, 7, None)
    owner = f", {report.owner}" if report.owner else ""
    typer.echo()
    screen.print(render.styled(f"{report.model}: mode {report.mode}{owner}", "bold"))
    for part, said in report.failed.items():
        rows.add_row(render.styled(part), render.styled("fail", "red"), render.styled(said))
    for drift in report.drifts:
        rows.add_row(render.styled(drift.part), render.styled("fail", "red"), render.styled(f"{drift.said} -> {drift.fix}"))
    for one in report.standings:
        fix = f" -> {one.fix}" if one.fix else ""
        rows.add_row(render.styled(one.what), render.styled(one.can.value, CAN_COLOURS[one.can.value]), render.styled(one.said + fix))
    screen.print(rows)
    typer.echo(render.plain(f"next: {report.next_command}"))


def _lines_of(report: ModelReport) -> Iterator[dict[str, str]]:
    about = {"model": report.model, "mode": report.mode}
    for part, said in report.failed.items():
        yield about | {"level": "fail", "name": part, "said": said, "fix": "correct what it names"}
    for drift in report.drifts:
        yield about | {"level": "fail", "name": drift.part, "said": drift.said, "fix": drift.fix}
    for one in report.standings:
        yield about | {
            "level": "ok" if one.can.value == "yes" else "warn",
            "name": one.what,
            "said": f"{one.can.value}: {one.said}",
            "fix": one.fix,
        }


def settings_of(env: Mapping[str, str]) -> Settings:
    """As a service with this environment would have them."""
    from mlrunbook.base.settings import Settings

    named = {name: str(field.validation_alias or f"MLRUNBOOK_{name.upper()}") for name, field in Settings.model_fields.items()}
    return Settings(**{name: env[variable] for name, variable in named.items() if env.get(variable)})  # type: ignore[arg-type]
