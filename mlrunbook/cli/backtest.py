"""`mlrunbook backtest`: what the runbook would have made of a team's own history. Needs no server."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlrunbook.cli import render
from mlrunbook.cli.errors import complain
from mlrunbook.domain.errors import Invalid, RunbookError

if TYPE_CHECKING:
    from mlrunbook.adapters.history.mapping import Columns
    from mlrunbook.domain.backtest.result import Backtest

OUT = Path("backtest")
BAD_INPUT, TERMINATED = 2, 143


def backtest(  # noqa: PLR0913 - its parameters are the command's options
    log: Annotated[
        Path | None, typer.Argument(metavar="LOG", help="Parquet (a file or a folder of them) or CSV: one prediction a row.")
    ] = None,
    model: Annotated[str, typer.Option(help="Its name in the policy. Default: the name of the file.")] = "",
    policy: Annotated[Path | None, typer.Option(help="Policy file. Default: the one in force.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for report.html and report.json.")] = OUT,
    column: Annotated[
        list[str] | None, typer.Option(metavar="ROLE=NAME", help="Which column says what: outcome=failed. Repeatable.")
    ] = None,
    mapping: Annotated[Path | None, typer.Option(help="The same as YAML: time, score, label, threshold, outcome, ...")] = None,
    threshold: Annotated[float | None, typer.Option(help="Of every row, where no column says it.")] = None,
    outcome_delay: Annotated[str | None, typer.Option(help="How long after a prediction its outcome is known, such as 7d.")] = None,
    sample: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a made-up log to FILE (CSV) and stop.")] = None,
) -> None:
    """Replay your own log of predictions and outcomes through the rules that run live, and write a report.

    Shows what plain thresholds would have alarmed, what this runbook would have called real, when, how severe and why.
    """
    try:
        if sample is not None:
            _write_sample(sample)
            return
        if log is None:
            raise Invalid("name the log: `mlrunbook backtest LOG`; `mlrunbook backtest --sample sample.csv` writes one to try")
        _run(log, model, policy, out, (column or [], mapping, threshold, outcome_delay))
    except RunbookError as error:
        complain("; ".join(str(error).splitlines()))
        raise typer.Exit(BAD_INPUT) from error


def _write_sample(file: Path) -> None:
    from mlrunbook.drills.sample_log import write

    if file.exists():
        raise Invalid(f"{file} exists: name a new file")
    rows = write(file)
    typer.echo(f"{render.plain(file)}: {rows:,} made-up predictions of 120 days; now `mlrunbook backtest {render.plain(file)}`")


def _run(log: Path, model: str, policy: Path | None, out: Path, said: tuple[list[str], Path | None, float | None, str | None]) -> None:
    from mlrunbook.adapters.history import backtest as history
    from mlrunbook.adapters.history import mapping
    from mlrunbook.adapters.reports import backtest as report
    from mlrunbook.cli.policy import in_force, path_in_force
    from mlrunbook.domain.policy.owned import is_model_id

    name = model or _name_of(log)
    if model and not is_model_id(model):
        raise Invalid(f"--model {model[:100]!r}: letters, digits, '.', '_' and '-', 100 at most", field="model")
    report.check_folder(out)
    from_ = path_in_force(policy)
    asked = history.Asked(log, mapping.given(*said), name, in_force(policy), str(from_) if from_ else "the built-in defaults")
    with _terminable(), _progress(history.STEPS) as progress:
        found = history.backtest(asked, progress, _show_columns)
    html, data = report.write(found, out)
    screen = render.console()
    for line in _summary(found):
        screen.print(line)
    screen.print(render.styled(f"report: {html}  data: {data}", "bold"))


def _name_of(log: Path) -> str:
    """The file's name, as the policy can hold it."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", log.name.split(".")[0]).strip("_-")[:100] or "model"


def _show_columns(columns: Columns) -> None:
    """On stderr, as the bar is: what is guessed is seen before it has taken a minute."""
    said = [f"{role}={name}{' (guessed)' if role in columns.guessed else ''}" for role, name in columns.of.items()]
    typer.echo(render.plain(f"columns: {', '.join(said)}"), err=True)
    features = ", ".join(columns.features[:12]) + (f" and {len(columns.features) - 12} more" if len(columns.features) > 12 else "")
    typer.echo(render.plain(f"features: {features or 'none'}"), err=True)
    if columns.has_score:
        typer.echo(
            render.plain(
                f"threshold: {columns.threshold_from if 'threshold' in columns.of else f'{columns.threshold:g}, {columns.threshold_from}'}"
            ),
            err=True,
        )


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM, as of `timeout`, takes what is on disk meanwhile away, as Ctrl-C does."""

    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True
        raise SystemExit(TERMINATED)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except RuntimeError as error:
        if "Query interrupted" not in str(error):
            raise
        # What a signal raises in the middle of a query comes out of DuckDB as this.
        raise (SystemExit(TERMINATED) if stopped else KeyboardInterrupt) from error
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress(steps: tuple[str, ...]) -> Iterator[Callable[[str, float], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<14}"), BarColumn(30), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(steps[0], total=float(len(steps)))

        def moved(step: str, share: float) -> None:
            bar.update(task, description=step, completed=steps.index(step) + share)

        yield moved


def _summary(found: Backtest) -> Iterator[object]:
    """Short: the report has it all."""
    from mlrunbook.adapters.reports.backtest import called_words, headline, suggestion_words

    yield ""
    yield from (render.styled(line) for line in headline(found))
    table = render.grid(9, None)
    for call in found.calls[:8]:
        table.add_row(render.severity(call.severity.value), render.styled(called_words(call)))
    if found.calls:
        yield table
    if len(found.calls) > 8:
        yield f"and {len(found.calls) - 8} more in the report"
    for bad in found.bad:
        yield render.styled(f"left out: {bad.count:,} row{'' if bad.count == 1 else 's'}, {bad.reason} ({bad.example})", "yellow")
    yield from (render.styled(line) for line in suggestion_words(found))
    yield from (render.styled(f"note: {note}", "dim") for note in found.notes[:-1])
