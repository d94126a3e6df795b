"""`mlrunbook platform-contract URL`: does a team's own model platform answer as the runbook's calls expect?"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from mlrunbook.cli import render, target
from mlrunbook.domain.errors import Invalid, Transient

if TYPE_CHECKING:
    from mlrunbook.diagnostics.platform_contract_http import Result

COLOURS = {"conforms": "green", "differs": "red", "missing": "red", "no answer": "red", "not run": "yellow"}
GOOD = {"conforms", "not run"}


def platform_contract(
    url: Annotated[str, typer.Argument(metavar="URL", help="The platform's base URL, e.g. https://ml.example.com.")],
    model: Annotated[str, typer.Option("--model", help="A model it serves.")] = "predictive_maintenance",
    token_env: Annotated[
        str | None, typer.Option("--token-env", metavar="NAME", help="Environment variable that holds the platform's token.")
    ] = None,
    allow_changes: Annotated[
        str | None,
        typer.Option(
            "--allow-changes",
            metavar="MODEL",
            help="Also ask what changes something, on this model: it is rolled back, promoted and staged, and put back; "
            "its pending work orders are flagged.",
        ),
    ] = None,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0.1, max=120, help="Seconds to wait for each answer.")] = 10.0,
    json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Ask a model platform every question of the runbook, and say which endpoints conform. Reads only, unless you allow changes.

    Exit code: 0 all conform (what cannot be judged is said), 1 something differs, is missing or gave no answer, 2 wrong usage.
    """
    if not url.startswith(("http://", "https://")):
        raise Invalid(f"{url} is no URL: write it as in https://ml.example.com", field="url")
    from mlrunbook.diagnostics.platform_contract_http import Verdict, examine

    token = _token(url, token_env)
    found: list[Result] = []
    for result in examine(url, model=allow_changes or model, token=token, changes_allowed=allow_changes is not None, timeout_s=timeout_s):
        found.append(result)
        if result.verdict is Verdict.NO_ANSWER and len(found) == 1:
            raise Transient(result.came)
        if not json:
            _tell(result)
    if json:
        render.as_json([vars(result) | {"verdict": result.verdict.value} for result in found])
    else:
        counts = {verdict: sum(r.verdict == verdict for r in found) for verdict in Verdict}
        typer.echo(", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count))
    raise typer.Exit(0 if all(result.verdict in GOOD for result in found) else 1)


def _token(url: str, name: str | None) -> str | None:
    """Of the named variable; without one, that of the settings goes to the settings' platform alone."""
    if name:
        token = os.environ.get(name)
        if not token:
            raise Invalid(f"the environment variable {name} is empty: put the platform's token there", field="token-env")
        return token
    env = target.environment()
    known = env.get("MLRUNBOOK_PLATFORM_URL", "").rstrip("/")
    return env.get("MLRUNBOOK_PLATFORM_TOKEN") if known == url.rstrip("/") else None


def _tell(result: Result) -> None:
    verdict = result.verdict.value
    typer.secho(f"{verdict:<11}", fg=COLOURS[verdict], nl=False)
    typer.echo(render.plain(f"{result.method:<5} {result.path}"))
    if verdict in GOOD:
        typer.echo(render.plain(f"           {result.came}"))
    else:
        typer.echo(render.plain(f"           expected {result.expected}"))
        typer.echo(render.plain(f"           came {result.came}"))
