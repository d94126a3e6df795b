"""`mlrunbook train`: the training command that policy names by default (runbook, Path C)."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from mlrunbook.cli import target
from mlrunbook.cli.policy import path_in_force
from mlrunbook.domain.errors import Invalid


def train(
    start_date: Annotated[str, typer.Option("--start-date", help="ISO date or time, UTC unless it says otherwise; included.")],
    end_date: Annotated[str, typer.Option("--end-date", help="Not included; in the past.")],
    model_name: Annotated[str, typer.Option("--model-name", help="e.g. predictive_maintenance")],
    version: Annotated[str, typer.Option("--version", help="The new version, e.g. v2.1.0. A version is never overwritten.")],
    seed: Annotated[int, typer.Option("--seed", min=0, help="The same data and seed give the same artefact.")] = 0,
) -> None:
    """Train a version on labelled predictions and the features that the feature store knew then; it is not registered yet."""
    start, end = moment(start_date, "--start-date"), moment(end_date, "--end-date")
    url, env = target.database_url(), target.environment()

    from mlrunbook.base import db
    from mlrunbook.base.policy_file import load
    from mlrunbook.domain.policy.policy import Policy
    from mlrunbook.local.platform.training import Sources, Wanted, train_version

    file = path_in_force(None)
    data = Path(env.get("MLRUNBOOK_DATA_DIR") or target.DEFAULT_DATA_DIR).expanduser()
    sources = Sources(
        engine=db.engine(url),
        repo=Path(env.get("MLRUNBOOK_FEATURE_REPO") or data / "features"),
        service=(load(file) if file else Policy()).features.service,
        models_dir=data / "models",
    )
    train_version(Wanted(model_name, version, start, end, seed), sources, now=datetime.now(UTC), say=typer.echo)


def moment(text: str, option: str) -> datetime:
    """An ISO 8601 date or time; without a zone it is UTC."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Invalid(f"{option} {text!r} is no date; write 2026-03-29 or 2026-03-29T14:30:00+00:00", field=option) from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
