"""`mlrunbook runbook ...`: the upkeep of the runbook's own page."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from mlrunbook.cli import render
from mlrunbook.domain.audits import runbook_page
from mlrunbook.domain.errors import Invalid, NotFound, Refused

FOLDER = Path("docs/runbooks")
PAGE = FOLDER / "ml-model-incident.md"
_FIELDS = "%x1f".join(("%as", "%an", "%s")) + "%x1e"

app = typer.Typer(no_args_is_help=True, help="Owner, review and versions of the runbook's page.")


@app.command()
def status() -> None:
    """Say who owns the runbook and whether its review is due. Exit code 1: overdue."""
    held = runbook_page.read(_page().read_text(encoding="utf-8"))
    in_time, words = held.verdict(datetime.now(UTC).date())
    typer.echo(render.plain(f"{PAGE}: {words}"))
    if not in_time:
        raise Refused("review the runbook, write the date as Last Reviewed under Runbook Maintenance, and commit")


@app.command()
def history(
    limit: Annotated[int, typer.Option("--limit", min=1, help="The newest so many.")] = 20,
    markdown: Annotated[bool, typer.Option("--markdown", help="As a table for a page.")] = False,
) -> None:
    """List the versions of the runbook, newest first: date, changes and author of each commit to its folder."""
    from mlrunbook.domain.communication.markdown import md

    rows = versions(_page().parents[2])[:limit]
    if markdown:
        typer.echo("| Version | Date | Changes | Author |\n|---------|------|---------|--------|")
        typer.echo("\n".join(f"| {version} | {day} | {md(what)} | {md(who)} |" for version, day, what, who in rows))
        return
    table = render.grid(8, 10, None, 24)
    for row in (("Version", "Date", "Changes", "Author"), *rows):
        table.add_row(*(render.styled(cell) for cell in row))
    render.console().print(table)


def versions(checkout: Path) -> list[tuple[str, str, str, str]]:
    """(version, date, changes, author), newest first. 1.0 is the first commit to the folder, 1.1 the next."""
    try:
        asked = subprocess.run(
            ["git", "-C", str(checkout), "log", f"--format={_FIELDS}", "--", str(FOLDER)], capture_output=True, text=True, timeout=30
        )
    except FileNotFoundError as error:
        raise Invalid("git is not installed here: the runbook's versions are its commits; run this where the checkout is") from error
    if asked.returncode:
        raise Invalid(f"{checkout} is no Git checkout: the runbook's versions are its commits; run this where the checkout is")
    commits = [entry.strip().split("\x1f") for entry in asked.stdout.split("\x1e") if entry.strip()]
    return [(f"1.{len(commits) - n}", day, what, who) for n, (day, who, what) in enumerate(commits, 1)]


def _page() -> Path:
    from mlrunbook.base.settings import settings

    page = settings().home / PAGE
    if not page.exists():
        raise NotFound(f"{page} does not exist: set MLRUNBOOK_HOME to the checkout")
    return page
