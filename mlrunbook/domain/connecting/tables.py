"""Which of many tables is a model's log of predictions, and which holds its outcomes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mlrunbook.domain.connecting import names
from mlrunbook.domain.connecting.guesses import Guess, likely, most_alike, nothing, resemblance, sure, undecided
from mlrunbook.domain.connecting.names import Role
from mlrunbook.domain.connecting.seen import TableSeen


def _has(table: TableSeen, role: Role, *, least: int = 1) -> bool:
    return any(role.rank(c.name) >= least and role.holds(c) for c in table.columns)


def holds_predictions(table: TableSeen) -> bool:
    return _has(table, names.AT) and (_has(table, names.SCORE) or _has(table, names.LABEL, least=3))


def holds_outcomes(table: TableSeen) -> bool:
    return _has(table, names.OUTCOME) and not _has(table, names.SCORE) and len(table.columns) >= 2


def guess_tables(model: str, tables: Iterable[TableSeen], *, said: str | None = None, outcomes: str | None = None) -> tuple[Guess, Guess]:
    """The table of the predictions, and that of the outcomes; `said` and `outcomes` are what a person named."""
    all_ = list(tables)
    predictions = sure(said, "you named it") if said else _one(model, [t for t in all_ if holds_predictions(t)], "predictions")
    if outcomes:
        return predictions, sure(outcomes, "you named it")
    if not predictions.value:
        return predictions, nothing("no table of predictions to join it with")
    others = [t for t in all_ if t.name != predictions.value and holds_outcomes(t)]
    own = next((t for t in all_ if t.name == predictions.value), None)
    if own is not None and _has(own, names.OUTCOME, least=3):
        return predictions, nothing("the outcome stands in the predictions' own table")
    return predictions, _one(model, others, "outcomes")


def _one(model: str, found: Sequence[TableSeen], what: str) -> Guess:
    if not found:
        return nothing(f"no table looks like a log of {what}")
    if len(found) == 1 and (whose(found[0], model) or not _of_another(found[0])):
        return sure(found[0].name, f"the only table that looks like a log of {what}")
    named = most_alike([t.name for t in found], model)
    if len(named) == 1:
        return likely(named[0], f"of {_list(found)}, its name resembles {model}")
    ours = [t for t in found if whose(t, model)]
    if len(ours) == 1:
        return likely(ours[0].name, f"of {_list(found)}, it alone holds rows of {model}")
    if len(found) == 1:
        return likely(found[0].name, f"the only table that looks like a log of {what}")
    return undecided([t.name for t in found], f"{_list(found)} look like logs of {what}")


def _of_another(table: TableSeen) -> bool:
    return any(names.MODEL.rank(c.name) == 3 and c.values for c in table.columns)


def whose(table: TableSeen, model: str) -> bool:
    """Whether a column of it names the model."""
    columns = [c for c in table.columns if names.MODEL.rank(c.name) and names.MODEL.holds(c)]
    return any(resemblance(v, model) >= 0.5 for c in columns for v in c.values)


def models_in(tables: Iterable[TableSeen]) -> tuple[str, ...]:
    """The models that logs of predictions name in a column, for a team without a registry."""
    found: dict[str, None] = {}
    for table in tables:
        if holds_predictions(table):
            for column in table.columns:
                if names.MODEL.rank(column.name) == 3 and names.MODEL.holds(column):
                    found |= dict.fromkeys(column.values)
    return tuple(found)


def _list(found: Sequence[TableSeen]) -> str:
    return ", ".join(t.name for t in found[:5])
