"""`mlrunbook connect`: look at what a team has, and write it into the policy."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlrunbook.cli import render, target
from mlrunbook.cli.policy import path_in_force
from mlrunbook.domain.errors import Invalid

if TYPE_CHECKING:
    from mlrunbook.diagnostics.connect.looking import Looked, Places
    from mlrunbook.domain.connecting.model import ModelGuess
    from mlrunbook.domain.policy.policy import Policy

SURE_STYLES = {"sure": "green", "likely": "yellow", "open": "bold red"}
CONNECTIONS = "mlflow", "predictions", "prometheus"


def connect(  # noqa: PLR0913 - its parameters are the command's options
    mlflow: Annotated[str | None, typer.Option("--mlflow", metavar="URL", help="The MLflow server.")] = None,
    predictions: Annotated[
        str | None, typer.Option(metavar="URL", help="The prediction log: postgresql://..., duckdb:///data/preds/*.parquet, ...")
    ] = None,
    table: Annotated[str | None, typer.Option(metavar="NAME", help="Its table, where there are several.")] = None,
    outcomes: Annotated[str | None, typer.Option(metavar="URL/TABLE", help="What came true: a table beside it, or a folder.")] = None,
    prometheus: Annotated[str | None, typer.Option("--prometheus", metavar="URL", help="The Prometheus that scrapes the servers.")] = None,
    kube_context: Annotated[str | None, typer.Option(metavar="NAME", help="Context of the kubeconfig where the servers run.")] = None,
    namespace: Annotated[str | None, typer.Option(metavar="NAME", help="Their namespace; default the context's.")] = None,
    feast: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the Feast repository's feature_store.yaml.")] = None,
    model: Annotated[list[str] | None, typer.Option(metavar="NAME", help="These models alone; may be given several times.")] = None,
    time_zone: Annotated[str | None, typer.Option(metavar="ZONE", help="Of times without a zone, as Europe/Berlin.")] = None,
    write: Annotated[Path | None, typer.Option(metavar="PATH", help="Write into this policy file.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be written.")] = False,
    again: Annotated[bool, typer.Option("--replace", help="Write a model anew although somebody has edited what connect wrote.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Show where the policy and the world differ; exit code 1 where they do.")] = False,
    json: Annotated[bool, typer.Option("--json", help="For scripts, with --check.")] = False,
) -> None:
    """Look at MLflow, a prediction log, Prometheus, a cluster and Feast, guess how they fit, and write it into the policy.

    It reads and changes nothing but the policy file, and no address or secret goes into that. New models are in mode observe: nothing
    is changed for them. Addresses may also stand in MLRUNBOOK_CONNECTION_MLFLOW, _PREDICTIONS and _PROMETHEUS.
    """
    path = write or path_in_force(None)
    policy, text = _policy(path)
    if check:
        _check(policy, as_json=json)
        return
    given = dict(zip(CONNECTIONS, (mlflow, predictions, prometheus), strict=True))
    env = target.environment()
    if not any([*given.values(), kube_context, feast, model]) and sys.stdin.isatty():
        given, kube_context, feast = _asked(env)
    places = _places(given, policy, env, (table, outcomes, namespace))
    places = replace(places, ask_cluster=kube_context is not None, kube_context=kube_context or None)
    places = replace(places, feast=feast, models=tuple(model or ()))
    looked = _looked(places, datetime.now(UTC))
    guesses = _guesses(looked, places, model or (), time_zone, ask=sys.stdin.isatty() and not dry_run)
    for guess in guesses:
        _show(guess)
    _write(path, text, guesses, places, dry_run=dry_run or (write is None and not sys.stdin.isatty()), anew=again)


def _policy(path: Path | None) -> tuple[Policy, str]:
    from mlrunbook.base.policy_file import parse

    text = path.read_text(encoding="utf-8") if path is not None and path.exists() else ""
    return parse(text, path.name if path else "runbook.yaml"), text


def _asked(env: Mapping[str, str]) -> tuple[dict[str, str | None], str | None, Path | None]:
    typer.echo("Where are they? Leave empty what you do not have.")
    words = {
        "mlflow": "MLflow (http://...)",
        "predictions": "Prediction log (postgresql://..., duckdb:///folder)",
        "prometheus": "Prometheus (http://...)",
    }
    found = {}
    for name in CONNECTIONS:
        has_one = bool(env.get(_variable(name)))
        found[name] = typer.prompt(words[name] + (" [as set]" if has_one else ""), default="", show_default=False) or None
    context = typer.prompt("Context of the kubeconfig", default="", show_default=False) or None
    repo = typer.prompt("Folder of the Feast repository", default="", show_default=False)
    return found, context, Path(repo) if repo else None


def _variable(name: str) -> str:
    from mlrunbook.domain.policy.connections import connection_variable

    return connection_variable(name)


def _places(
    given: Mapping[str, str | None], policy: Policy, env: Mapping[str, str], said: tuple[str | None, str | None, str | None]
) -> Places:
    from mlrunbook.diagnostics.connect.addresses import connection_name, one_place
    from mlrunbook.diagnostics.connect.looking import Places
    from mlrunbook.diagnostics.connect.rendering import Names
    from mlrunbook.domain.policy.connections import Kind

    table, outcomes, namespace = said
    kinds = dict(zip(CONNECTIONS, (Kind.MLFLOW, Kind.SQL, Kind.PROMETHEUS), strict=True))
    addresses = {name: given[name] or env.get(_variable(name)) for name in CONNECTIONS}
    if address := addresses["predictions"]:
        addresses["predictions"], table, outcomes = one_place(address, table, outcomes)
    names = {name: connection_name(kinds[name], name, a, policy.connections, env) if a else None for name, a in addresses.items()}
    tokens = {own: token for own in names.values() if own and (token := env.get(f"{_variable(own)}_TOKEN"))}
    authorities = {name: one.ca_file for name, one in policy.connections.items() if one.ca_file}
    mlflow, predictions, prometheus = (names[name] for name in CONNECTIONS)
    return Places(
        Names(mlflow, predictions, prometheus),
        mlflow=addresses["mlflow"],
        predictions=addresses["predictions"],
        table=table,
        outcomes_table=outcomes,
        prometheus=addresses["prometheus"],
        namespace=namespace,
        tokens=tokens,
        ca_files=authorities,
    )


def _looked(places: Places, now: datetime) -> Looked:
    """Everything, or nothing is written: half of a mapping is no mapping."""
    from mlrunbook.diagnostics.connect.looking import look

    looked = look(places, now)
    for part, said in looked.problems.items():
        typer.secho(f"{part}: ", fg="yellow" if part.startswith("cluster permission") else "red", nl=False, err=True)
        typer.echo(render.plain(said), err=True)
    failed = [part for part in looked.problems if not part.startswith("cluster permission")]
    if failed:
        raise Invalid(f"{', '.join(failed)} could not be looked at, so nothing is written: correct it, or leave it out")
    return looked


def _guesses(looked: Looked, places: Places, only: Sequence[str], zone: str | None, *, ask: bool) -> tuple[ModelGuess, ...]:
    from mlrunbook.diagnostics.connect.guessing import Answers
    from mlrunbook.diagnostics.connect.proposing import propose

    now = datetime.now(UTC)
    said = Answers(zone=zone)
    guesses = propose(looked, places, now, only=only, said=said)
    if not guesses:
        raise Invalid("no model was found: name an MLflow server with --mlflow, or models with --model")
    if ask and (answers := {g.registered.name: own for g in guesses if (own := dict(_answers(g)))}):
        return propose(looked, places, now, only=only, said=replace(said, by_model=answers))
    return guesses


def _answers(guess: ModelGuess) -> Iterator[tuple[str, str]]:
    """What the person at the terminal says to each guess that is open; nothing leaves a TODO."""
    from mlrunbook.diagnostics.connect.guessing import open_parts

    for part, found in open_parts(guess).items():
        typer.echo(render.plain(f"{guess.model}, {part}: {found.reason}"))
        choices = "" if part == "model_value" else f" ({', '.join(found.choices[:12])})"
        answer = typer.prompt(render.plain(f"  {part}{choices}; empty leaves a TODO"), default="", show_default=False).strip()
        if answer:
            yield part, answer


def _show(guess: ModelGuess) -> None:
    screen, rows = render.console(), render.grid(13, 22, 6, None)
    serves = f"version {guess.serving_version} serves" if guess.serving_version else "nothing says what serves"
    head = f"{serves}, {len(guess.registered.versions)} versions" if guess.in_registry else "no registry"
    typer.echo()
    screen.print(render.styled(f"{guess.model}: {head}", "bold"))
    for part, found in _rows(guess):
        lacking = found.value is None and part in ("at", "key", "outcome", "serving alias", "outcome key")
        sure = "open" if found.undecided or lacking else found.sure.value if found.value else ""
        value = found.value or ("?" if found.undecided else "-")
        rows.add_row(render.styled(part), render.styled(value), render.styled(sure, SURE_STYLES.get(sure, "")), render.styled(found.reason))
    screen.print(rows)
    for said in guess.trouble:
        screen.print(render.styled(f"! {said}", "yellow"))


def _rows(guess: ModelGuess) -> Iterator[tuple[str, Any]]:
    if guess.serving is not None:
        yield "serving alias", guess.serving
    if guess.candidate is not None:
        yield "candidate", guess.candidate
    if guess.log is not None:
        yield from guess.log.predictions.items()
        yield from (
            ("outcome key" if part == "key" else "outcome day" if part == "day" else part, g) for part, g in guess.log.outcomes.items()
        )
        yield "yes is", guess.log.positive
        yield "model column", guess.log.model_column
    if guess.objects is not None:
        of = guess.objects
        yield "Deployment", of.deployment
        if of.deployment.value:
            yield from (
                ("container", of.container),
                ("Service", of.service),
                ("version label", of.version_label),
                ("ConfigMap", of.config_map),
            )
    if guess.live is not None:
        yield "live figures", guess.live.family
    if guess.views_guess is not None:
        yield "feature views", guess.views_guess


def _write(path: Path | None, text: str, guesses: Sequence[ModelGuess], places: Places, *, dry_run: bool, anew: bool) -> None:
    from mlrunbook.diagnostics.connect import proposing

    written = proposing.put(text, guesses, places, anew=anew)
    file = path or target.checkout() / "runbook.yaml"
    typer.echo()
    for model, why in written.left.items():
        typer.echo(render.plain(f"{model} stays as it is: {why}"))
    if dry_run:
        typer.echo(render.plain(f"# this would be in {file} (mlrunbook connect ... --write {file}):"))
        typer.echo(_added(text, written.text))
    elif written.text != text and (not sys.stdin.isatty() or typer.confirm(f"Write this to {file}?", default=True)):
        replace_file(file, text, written.text)
        typer.echo(render.plain(f"written to {file}: {', '.join(written.models)}, in mode observe"))
    for line in proposing.doubts(written.text, text):
        typer.secho(render.plain(f"warning: {line}"), fg="yellow", err=True)
    _say_what_is_next(guesses, places)


def replace_file(file: Path, read: str, text: str) -> None:
    """Whole or not at all, and with the rights that the file has; where a link leads. Looking takes a while: what somebody has written
    meanwhile stays."""
    file = file.resolve()
    if (file.read_text(encoding="utf-8") if file.exists() else "") != read:
        raise Invalid(f"{file} was changed while connect looked, so nothing is written: run it again")
    new = file.with_name(f".{file.name}.new")
    new.write_text(text, encoding="utf-8")
    if file.exists():
        new.chmod(file.stat().st_mode & 0o777)
    new.replace(file)


def _added(before: str, after: str) -> str:
    """The lines that are new, in the order of the file."""
    import difflib

    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return "\n".join(line[2:] for line in lines if line.startswith("+ "))


def _say_what_is_next(guesses: Sequence[ModelGuess], places: Places) -> None:
    from mlrunbook.diagnostics.connect.proposing import settings

    needed = settings(guesses, places)
    typer.echo()
    typer.echo("Set for the gateway and the worker (MLRUNBOOK_SECRETS_DIR takes files):")
    for one in needed:
        typer.echo(render.plain(f"  {one.name}={one.value}" if one.value is not None else f"  {one.name}=   # {one.why}"))
    typer.echo()
    typer.echo(render.plain(f"Next: mlrunbook doctor --model {guesses[0].model}"))


def _check(policy: Policy, *, as_json: bool) -> None:
    from mlrunbook.cli.doctor import settings_of
    from mlrunbook.diagnostics.connect.checking import check

    env = target.environment()
    found = check(policy, settings_of(env), env, datetime.now(UTC))
    if as_json:
        render.as_json({"drift": [vars(one) for one in found.drifts], "problems": dict(found.problems)})
    else:
        for one in found.drifts:
            typer.secho("drift ", fg="yellow", nl=False)
            typer.echo(render.plain(f"{one.model}, {one.part}: {one.said}"))
            typer.echo(render.plain(f"      -> {one.fix}"))
        for part, said in found.problems.items():
            typer.secho("fail  ", fg="red", nl=False)
            typer.echo(render.plain(f"{part}: {said}"))
        if not found.drifts and not found.problems:
            typer.echo(f"the policy is as the world is: {len(found.models)} models looked at")
    if found.drifts or found.problems:
        raise typer.Exit(1)
