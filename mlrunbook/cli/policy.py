"""`mlrunbook policy ...`: the rules in force, and what is wrong with a file of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlrunbook.cli import render, target
from mlrunbook.domain.errors import Invalid

if TYPE_CHECKING:
    from mlrunbook.domain.policy.policy import Policy

app = typer.Typer(no_args_is_help=True, help="Show or check the policy file (runbook.yaml).")

File = Annotated[Path | None, typer.Argument(metavar="[FILE]", help="Default: MLRUNBOOK_POLICY, else the checkout's runbook.yaml.")]


@app.command("show")
def show_(
    file: File = None,
    model: Annotated[str | None, typer.Option(help="As it holds for this model, each value with the line that it comes from.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="With --model: also what is as built in.")] = False,
) -> None:
    """Print the whole policy in force, defaults included, as YAML; with --model what holds for that model, and why."""
    import yaml

    path = path_in_force(file)
    policy = in_force(file)
    if model:
        from mlrunbook.base.policy_origin import shown

        typer.echo(shown(policy, path, model, everything=everything), nl=False)
        return
    typer.echo(f"# {render.plain(path) if path else 'no policy file: the defaults, which are the runbook'}")
    typer.echo(yaml.safe_dump(policy.model_dump(mode="json"), sort_keys=False), nl=False)


@app.command()
def check(file: File = None) -> None:
    """Check a policy file: each error with its line and what to write instead. A warning is no error: it is probably a mistake."""
    from mlrunbook.base.policy_file import load, warnings

    path = path_in_force(file)
    if path is None:
        typer.echo("no policy file: the defaults hold, which are the runbook")
        return
    try:
        load(path)
    except Invalid as error:
        for line in str(error).splitlines():
            typer.echo(render.plain(line), err=True)
        raise typer.Exit(1) from error
    found = warnings(path)
    for line in found:
        typer.echo(render.plain(f"warning: {line}"), err=True)
    typer.echo(f"{render.plain(path)}: no errors" + (f", {len(found)} warning{'s' * (len(found) > 1)}" if found else ""))


@app.command()
def prometheus(file: File = None) -> None:
    """Print the automated alerts as a Prometheus rule file, with the policy's thresholds."""
    from mlrunbook.adapters.reports import prometheus_rules as generator

    typer.echo(generator.as_yaml(in_force(file)), nl=False)


def in_force(file: Path | None = None) -> Policy:
    """The policy that a service started here would follow."""
    from mlrunbook.base.policy_file import load
    from mlrunbook.domain.policy.policy import Policy

    path = path_in_force(file)
    return load(path) if path else Policy()


def path_in_force(file: Path | None) -> Path | None:
    """None when nobody named a file and the checkout has none: the defaults hold."""
    named = file or (Path(os.environ["MLRUNBOOK_POLICY"]) if os.environ.get("MLRUNBOOK_POLICY") else None)
    default = target.checkout() / "runbook.yaml"
    return named or (default if default.exists() else None)
