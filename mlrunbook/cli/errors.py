"""Every error a user can meet, as one line on stderr and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from mlrunbook.cli.render import plain
from mlrunbook.domain.errors import RunbookError

INTERRUPTED = 130


class OneLineErrors(TyperGroup):
    """The root command: 0, 1 on an error, 2 on wrong usage; a traceback only with MLRUNBOOK_DEBUG=1."""

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, *_: Any, **extra: Any) -> Any:
        try:
            code = super().main(args, prog_name, **{**extra, "standalone_mode": False})
        except typer.Abort:
            complain("stopped by you; nothing more was done")
            sys.exit(INTERRUPTED)
        except Exception as error:
            if os.environ.get("MLRUNBOOK_DEBUG") == "1":
                raise
            said, status = explained(error)
            if said:
                complain(said)
            sys.exit(status)
        sys.exit(code if isinstance(code, int) else 0)


def complain(said: str) -> None:
    typer.secho("error: ", fg="red", nl=False, err=True)
    typer.echo(plain(said), err=True)


def _plain_value(error: Any) -> str:
    from mlrunbook.base.wording import plainly

    return plainly(error.errors()[0])


def explained(error: Exception) -> tuple[str, int]:
    """What to tell the user, and the exit code. Nothing to tell: it has been told (the help of a bare `mlrunbook incidents`)."""
    if isinstance(error, RunbookError):
        return "; ".join(str(error).splitlines()), 1
    if hasattr(error, "format_message"):  # wrong usage, found by typer
        said, ctx = error.format_message().strip().replace("Value error, ", ""), getattr(error, "ctx", None)
        if hasattr(error.__cause__, "errors"):  # pydantic's, of the value of an option
            said = said.replace(str(getattr(error, "message", "")).strip(), _plain_value(error.__cause__))
        where = f"; see `{ctx.command_path} --help`" if ctx and said else ""
        return said.rstrip(".") + where, getattr(error, "exit_code", 2)
    if isinstance(error, ImportError):
        return f"{error}: the installation is incomplete; install mlrunbook again (in its checkout: `make clean`, then `make demo`)", 1
    if type(error).__name__ == "ValidationError" and hasattr(error, "errors"):  # pydantic's, of the settings
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        said = first["msg"].removeprefix("Value error, ")
        return f"MLRUNBOOK_{name.removeprefix('MLRUNBOOK_')}: {said}; correct it in the environment", 1
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}; check the path and its permissions", 1
    return f"unexpected {type(error).__name__}: {error}; run it again with MLRUNBOOK_DEBUG=1 for the details", 1
