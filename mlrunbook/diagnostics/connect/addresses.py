"""Addresses as people give them: what may be shown of one, which connection of the policy it is, and two folders as one place."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from mlrunbook.domain.connection_secrets import hidden
from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.policy.connections import Connection, Kind, connection_variable

DUCKDB = "duckdb://"
_GLOB = frozenset("*?[")


def shown(address: str) -> str:
    """Without the password, and without what else stands before the @.

    >>> shown("postgresql://reader:hush@db.example.com/lake"), shown("http://mlflow:5000")
    ('postgresql://reader:***@db.example.com/lake', 'http://mlflow:5000')
    """
    return hidden(address)


def has_secret(address: str) -> bool:
    return shown(address) != address


def connection_name(kind: Kind, default: str, address: str, known: Mapping[str, Connection], env: Mapping[str, str]) -> str:
    """The connection of the policy that has this address, or none yet; else a new one's name."""
    same = [name for name, one in known.items() if one.kind is kind]
    for name in same:
        if env.get(connection_variable(name)) in (None, "", address):
            return name
    taken = set(known)
    names = (default if i == 1 else f"{default}-{i}" for i in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


def one_place(predictions: str, table: str | None, outcomes: str | None) -> tuple[str, str | None, str | None]:
    """The address of the connection, and the tables in it. `outcomes` is a table of the same connection, or a folder beside it."""
    if outcomes is None or "://" not in outcomes:
        return predictions, table, outcomes
    if not (predictions.startswith(DUCKDB) and outcomes.startswith(DUCKDB)):
        head, _, name = outcomes.rpartition("/")
        if head == predictions.rstrip("/") and name:
            return predictions, table, name
        raise Invalid(
            "--outcomes names another database than --predictions: predictions and outcomes are joined where they are, so name a table "
            "(--outcomes schema.table), or a view there of the other database", field="outcomes",
        )  # fmt: skip
    ours, theirs = Path(predictions.removeprefix(DUCKDB)), Path(outcomes.removeprefix(DUCKDB))
    base = Path(os.path.commonpath([_folder(ours), _folder(theirs)]))
    return f"{DUCKDB}{base}", table or _below(ours, base), _below(theirs, base)


def _folder(path: Path) -> Path:
    """What stands above the first part that is a pattern, or a file."""
    parts = path.parts
    first = next((i for i, part in enumerate(parts) if _GLOB & set(part)), None)
    whole = Path(*parts[:first]) if first is not None else path
    return whole.parent


def _below(path: Path, base: Path) -> str:
    """`preds` for a whole folder of files, the pattern itself for some of them."""
    below = path.relative_to(base).parts
    patterns = [part for part in below[1:] if part not in ("*", "**", "*.parquet")]
    return below[0] if len(below) > 1 and not patterns and not _GLOB & set(below[0]) else "/".join(below)
