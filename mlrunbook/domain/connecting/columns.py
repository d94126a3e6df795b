"""Which columns of a table are what. A guess rests on a column's name and on what it holds; two that fit equally are left open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mlrunbook.domain.connecting import names
from mlrunbook.domain.connecting.guesses import Guess, likely, nothing, resemblance, snake, sure, undecided, words
from mlrunbook.domain.connecting.names import Role
from mlrunbook.domain.connecting.seen import ColumnSeen, Holds, RegisteredModel, TableSeen

PREDICTIONS = (
    names.AT, names.KEY, names.SCORE, names.LABEL, names.VERSION, names.THRESHOLD, names.LATENCY, names.SEGMENT, names.ASSET, names.DAY,
)  # fmt: skip
NEEDED = frozenset({"key", "at", "outcome"})  # without a time, a key and an outcome nothing is measured
AS_TIME = "_as_time"


@dataclass(frozen=True)
class LogGuess:
    """Guesses by part, as the policy calls it: of the predictions, of the outcomes, and of what both say when they say yes.

    `negative`: their words for no, where `positive` is known. `query`, `outcomes_query`: read in the table's place, because a time in it is
    a number.

    `trouble`: what is wrong with a column that was chosen, each with what to do; the log is read wrongly or not at all until then.
    """

    table: str
    predictions: Mapping[str, Guess]
    outcomes: Mapping[str, Guess]
    positive: Guess
    model_column: Guess
    model_value: str | None = None
    outcomes_table: str | None = None
    features: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    query: str | None = None
    outcomes_query: str | None = None
    trouble: tuple[str, ...] = field(default=())


def guess_log(model: RegisteredModel, predictions: TableSeen, outcomes: TableSeen | None) -> LogGuess:
    """`outcomes` None: they stand in the predictions' own table, or nowhere."""
    column, value = _model_column(predictions, model.name)
    predictions, outcomes = predictions.of(value), outcomes.of(value) if outcomes else None
    found = {role.part: _column(role, predictions.columns, model.name) for role in PREDICTIONS}
    found |= _score_or_label(found, predictions, apart=outcomes is not None)
    found["version"] = _version(found["version"], predictions, model)
    found["latency_ms"] = _latency(found["latency_ms"], predictions)
    theirs = _of_outcomes(outcomes, model.name) if outcomes else _in_the_same(predictions, found, model.name)
    if outcomes:
        found["key"], theirs["key"] = _joined(found["key"], theirs["key"], predictions, outcomes)
    features, of_json = _features(model, predictions)
    if of_json is not None:
        found["features_json"] = of_json
    told = [(predictions, found["label"]), (outcomes or predictions, theirs["outcome"])]
    positive, negative = _positive([table.column(g.value) for table, g in told if g.value])
    query = _as_times(predictions, found if outcomes else {**found, "reported_at": theirs["reported_at"]})
    outcomes_query = _as_times(outcomes, theirs) if outcomes else None
    found["at"] = _renamed(found["at"], predictions)
    theirs["reported_at"] = _renamed(theirs["reported_at"], outcomes or predictions)
    return LogGuess(
        predictions.name,
        found,
        theirs,
        positive,
        column,
        value,
        outcomes.name if outcomes else None,
        features,
        negative,
        query,
        outcomes_query,
        tuple(_other_types(predictions, found)),
    )


def _column(role: Role, columns: Sequence[ColumnSeen], model: str, *, least: int = 1) -> Guess:
    """Of the columns that can be it by what they hold, the one whose name says so best."""
    ranked = [(role.rank(c.name), c) for c in columns]
    fitting = [(rank, c) for rank, c in ranked if rank >= least and role.holds(c)]
    if not fitting:
        wrong = [c for rank, c in ranked if rank == 3 and not role.holds(c)]
        if wrong:
            return nothing(f"{_list(wrong)} would be it by name, but holds {_holds(wrong[0])}, not {role.wanted}")
        return nothing(f"no column is called like it and holds {role.wanted}")
    best = max(rank for rank, _ in fitting)
    top = _of_model([c for rank, c in fitting if rank == best], model)
    if len(top) > 1:
        return undecided([c.name for c in top], f"{_list(top)} are called like it, and all hold {role.wanted}")
    said = {3: "its name says so", 2: "its name may mean it, and no other does", 1: "its name ends like it, and no other does"}[best]
    return (sure if best == 3 else likely)(top[0].name, f"{said}; holds {_holds(top[0])}")


def _of_model(columns: list[ColumnSeen], model: str) -> list[ColumnSeen]:
    """Those that name the model, where some do: `p_churn` of `p_churn` and `p_upsell`."""
    naming = [c for c in columns if any(w in words(c.name) for w in words(model) if len(w) > 2 and w not in ("model", "score"))]
    return naming if len(naming) == 1 else columns


def _list(columns: Sequence[ColumnSeen]) -> str:
    shown = [c.name for c in columns[:4]]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _holds(column: ColumnSeen) -> str:
    """ "numbers from 0.01 to 0.98", "text (no, yes)"."""
    if (unit := names.epoch_unit(column)) is not None:
        return f"times as {unit} since 1970"
    if column.low is not None and column.high is not None and column.holds in names.NUMERIC:
        return f"numbers from {column.low:g} to {column.high:g}"
    few = f" ({', '.join(column.values[:3])})" if column.values and column.holds in {Holds.TEXT, Holds.BOOLEAN} else ""
    return f"{column.holds}{few}"


def _score_or_label(found: Mapping[str, Guess], table: TableSeen, *, apart: bool) -> dict[str, Guess]:
    """`label` alone may be the truth: it is what was decided only where outcomes stand in a table of their own."""
    label = found["label"]
    if label.value is not None and snake(label.value) in ("label", "class") and not apart:
        return {"label": undecided([label.value], f"{label.value} may be what was decided, or what came true: say which")}
    if found["score"].value is None and not found["score"].choices:
        outside = [c for c in table.columns if names.SCORE.rank(c.name) == 3 and c.holds in names.NUMERIC and c.low is not None]
        if outside:
            reason = f"{_list(outside)} holds {_holds(outside[0])}: no probability; a query can bring it to 0..1"
            return {"score": nothing(reason) if label.value else undecided([c.name for c in outside], reason)}
    return {}


def _version(found: Guess, table: TableSeen, model: RegisteredModel) -> Guess:
    """What the log writes must be what the registry calls its versions, or no prediction belongs to one."""
    column = table.column(found.value) if found.value else None
    if column is None or not column.values or not model.versions:
        return found
    known = [v for v in column.values if v in model.versions]
    if len(known) == len(column.values):
        return sure(column.name, f"its values ({', '.join(column.values[:3])}) are versions of the registry")
    strange = [v for v in column.values if v not in model.versions][:3]
    if names.VERSION.rank(column.name) < 3 and not known:
        return nothing(f"{column.name} holds {', '.join(strange)}, which are no versions of the registry")
    reason = f"it holds {', '.join(strange)}; the registry's versions are {', '.join(model.versions[:3])}: they must be called the same"
    return Guess(column.name, reason, found.sure if known else likely(column.name, "").sure)


def _latency(found: Guess, table: TableSeen) -> Guess:
    column = table.column(found.value) if found.value else None
    if column is None or names.LATENCY.rank(column.name) == 3:
        return found
    last = words(column.name)[-1]
    if last in ("s", "sec", "secs", "seconds", "us", "micros"):
        return nothing(f"{column.name} is not in milliseconds; a query can bring it there")
    if last in ("ms", "millis") or (column.high or 0) > 60:
        return likely(column.name, f"{found.reason}: taken as milliseconds")
    return undecided([column.name], f"{column.name} {_holds(column)}: seconds or milliseconds?")


def _of_outcomes(table: TableSeen, model: str) -> dict[str, Guess]:
    found = {role.part: _column(role, table.columns, model) for role in (names.KEY, names.OUTCOME, names.REPORTED, names.DAY)}
    outcome = found["outcome"]
    if outcome.value is None and not outcome.choices:
        labels = [c for c in table.columns if names.is_label(c) and c.name != found["key"].value and not names.is_day(c)]
        if len(labels) == 1:
            found["outcome"] = likely(labels[0].name, f"the only column that holds {names.OUTCOME.wanted}")
        elif labels:
            found["outcome"] = undecided([c.name for c in labels], f"{_list(labels)} could be it")
    return found


def _in_the_same(table: TableSeen, found: Mapping[str, Guess], model: str) -> dict[str, Guess]:
    """One table for both: `is_weekend` is an input, so a name that may mean the outcome must be the only one, or name the model."""
    taken = {g.value for part, g in found.items() if g.value and part != "label"}
    left = [c for c in table.columns if c.name not in taken and c.name != found["label"].value]
    outcome = _column(names.OUTCOME, left, model)
    chosen = table.column(outcome.value) if outcome.value else None
    if chosen and names.OUTCOME.rank(chosen.name) < 3 and chosen not in _naming([chosen], model):
        outcome = undecided([chosen.name], f"{chosen.name} may be what came true, or an input: say which")
    return {"outcome": outcome, "reported_at": _column(names.REPORTED, left, model, least=3)}


def _naming(columns: list[ColumnSeen], model: str) -> list[ColumnSeen]:
    return [c for c in columns if set(words(c.name)) & {w for w in words(model) if len(w) > 2}]


def _joined(ours: Guess, theirs: Guess, predictions: TableSeen, outcomes: TableSeen) -> tuple[Guess, Guess]:
    """A key joins: where a name stands in both tables, that is a better sign than what it is called."""
    mine = [c for c in predictions.columns if names.KEY.rank(c.name) and names.KEY.holds(c)]
    shared = [c for c in mine if any(snake(o.name) == snake(c.name) for o in outcomes.columns)]
    if len(shared) == 1:
        other = next(o for o in outcomes.columns if snake(o.name) == snake(shared[0].name))
        reason = "its name stands in both tables"
        strong = names.KEY.rank(shared[0].name) >= 2
        return (sure if strong else likely)(shared[0].name, reason), (sure if strong else likely)(other.name, reason)
    entities = [
        c for c in predictions.columns if names.ASSET.rank(c.name) and any(snake(o.name) == snake(c.name) for o in outcomes.columns)
    ]
    if not shared and entities and theirs.value is None:
        reason = f"only {_list(entities)} stands in both tables: no key of one prediction, unless each is scored once"
        return undecided([c.name for c in entities], reason), undecided([c.name for c in entities], reason)
    return ours, theirs


def _model_column(table: TableSeen, model: str) -> tuple[Guess, str | None]:
    """The column that says whose row it is, where one log holds several models."""
    candidates = [c for c in table.columns if names.MODEL.rank(c.name) and names.MODEL.holds(c)]
    for column in sorted(candidates, key=lambda c: -names.MODEL.rank(c.name)):
        alike = [v for v in column.values if resemblance(v, model) >= 1.0] or [v for v in column.values if resemblance(v, model) >= 0.5]
        if v := next((v for v in column.values if v == model), None):
            return sure(column.name, f"it holds {v}"), v
        if len(alike) == 1:
            return likely(column.name, f"it holds {alike[0]}, which resembles {model}"), alike[0]
        if names.MODEL.rank(column.name) == 3 and column.values:
            reason = f"{column.name} holds {', '.join(column.values[:4])}: which of them is {model}?"
            return undecided([column.name], reason), None
    return nothing("no column names a model: every row is taken to be this model's"), None


def _features(model: RegisteredModel, table: TableSeen) -> tuple[tuple[str, ...], Guess | None]:
    """The inputs by the signature's names, as the table spells them; else the column that holds them as JSON."""
    if model.features:
        by_name = {snake(c.name): c.name for c in table.columns}
        inputs = tuple(by_name[snake(f)] for f in model.features if snake(f) in by_name)
        if len(inputs) == len(model.features):
            return inputs, None
    found = _column(names.JSON, table.columns, model.name)
    return (), (found if found.value or found.choices else None)


def _positive(columns: Sequence[ColumnSeen | None]) -> tuple[Guess, tuple[str, ...]]:
    """What the text columns say when they say yes, and when no; numbers and booleans need nothing."""
    texts = [c for c in columns if c is not None and c.holds is Holds.TEXT]
    said = tuple(dict.fromkeys(v for c in texts for v in c.values))
    if not texts:
        return nothing("booleans, or 0 and 1, need no words"), ()
    if said and all(v.lower() in names.PLAIN for v in said):
        return nothing("its words are plain"), ()
    yes = [v for v in said if snake(v) in names.YES]
    strange = [v for v in said if snake(v) not in names.YES | names.NO]
    if yes and not strange:
        return likely(", ".join(yes), f"of {', '.join(said)}"), tuple(v for v in said if v not in yes)
    return undecided(said, f"which of {', '.join(said) or 'its words'} means yes?"), ()


def _as_times(table: TableSeen, found: Mapping[str, Guess]) -> str | None:
    """A number is no time to a warehouse: a query that makes it one, as PostgreSQL and DuckDB take it."""
    made = []
    for part in ("at", "reported_at"):
        column = table.column(found[part].value or "") if part in found else None
        if column is not None and (unit := names.epoch_unit(column)):
            divided = "" if unit == "seconds" else f" / {names.EPOCH_DIVISOR[unit]}.0"
            made.append(f"to_timestamp({_quoted(column.name)}{divided}) AS {_quoted(column.name + AS_TIME)}")
    source = ".".join(_quoted(part) for part in table.name.split("."))
    return f"SELECT *, {', '.join(made)} FROM {source}" if made else None  # noqa: S608 - names of the database itself, quoted


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _renamed(guess: Guess, table: TableSeen) -> Guess:
    column = table.column(guess.value or "")
    unit = names.epoch_unit(column) if column is not None else None
    return (
        replace(guess, value=f"{guess.value}{AS_TIME}", reason=f"{guess.value} counts {unit} since 1970: a query makes it a time")
        if unit
        else guess
    )


def _other_types(table: TableSeen, found: Mapping[str, Guess]) -> list[str]:
    """A column that would be it by name, and holds something else."""
    result = []
    for role in PREDICTIONS:
        guess = found[role.part]
        if guess.value is None and "would be it by name" in guess.reason and role.part in ("at", "key"):
            result.append(f"{table.name}: {guess.reason}: a query can turn it into {role.wanted}")
    return result
