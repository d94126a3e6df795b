"""From what was seen to what the policy would say of each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from mlrunbook.diagnostics.connect.looking import Looked, Places
from mlrunbook.domain.connecting.columns import LogGuess, guess_log
from mlrunbook.domain.connecting.guesses import Guess
from mlrunbook.domain.connecting.model import ModelGuess, answers, clock_trouble, guess_candidate, guess_serving, model_id
from mlrunbook.domain.connecting.objects import guess_objects
from mlrunbook.domain.connecting.promql import guess_live
from mlrunbook.domain.connecting.seen import RegisteredModel, TableSeen
from mlrunbook.domain.connecting.tables import guess_tables, models_in
from mlrunbook.domain.connecting.views import guess_views
from mlrunbook.domain.errors import NotFound


@dataclass(frozen=True)
class Answers:
    """What people said where a guess was open: of a model, part to value (`columns.at`, `outcomes.outcome`, `serving_alias`, ...)."""

    by_model: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    zone: str | None = None

    def of(self, model: str) -> Mapping[str, str]:
        return self.by_model.get(model, {})


def found_models(looked: Looked, only: Sequence[str]) -> tuple[RegisteredModel, ...]:
    """Those of the registry; without one those that a log names, or that a person did."""
    if looked.models is not None:
        known = {m.name: m for m in looked.models}
        for name in only:
            if name not in known:
                there = ", ".join(sorted(known)[:20]) or "none"
                raise NotFound(f"the registry has no model {name!r}; it has {there}{' and more' if len(known) > 20 else ''}")
        return tuple(known[name] for name in only) if only else looked.models
    named = tuple(only) or models_in((looked.tables or {}).values())
    return tuple(RegisteredModel(name) for name in named)


def guessed(model: RegisteredModel, looked: Looked, places: Places, now: datetime, said: Answers) -> ModelGuess:
    own = said.of(model.name)
    in_registry = looked.models is not None
    log, trouble = _log(model, looked, places, own)
    objects = guess_objects(model.name, looked.cluster) if looked.cluster is not None else None
    if objects is not None and "deployment" in own and looked.cluster is not None:
        chosen = tuple(d for d in looked.cluster.deployments if d.name == own["deployment"])
        objects = guess_objects(chosen[0].name, replace(looked.cluster, deployments=chosen)) if chosen else objects
    deployments = [objects.deployment.value] if objects and objects.deployment.value else []
    views, why = guess_views(model.features, looked.views) if looked.views is not None else ((), None)
    serving = guess_serving(model) if in_registry else None
    if serving is not None:
        serving = answers({"serving_alias": serving}, own)["serving_alias"]
    table = (looked.tables or {}).get(log.table) if log else None
    if log is not None and table is not None:
        at = (log.predictions["at"].value or "").removesuffix("_as_time")
        clock = clock_trouble(table, at, now, said.zone or "UTC") if said.zone is None else None
        trouble += (clock,) if clock else ()
    return ModelGuess(
        model_id(model.name),
        model,
        in_registry,
        serving,
        guess_candidate(model) if in_registry else None,
        log,
        objects,
        guess_live(model.name, deployments, looked.metrics) if looked.metrics is not None else None,
        views,
        why,
        said.zone,
        trouble,
    )


def _log(model: RegisteredModel, looked: Looked, places: Places, own: Mapping[str, str]) -> tuple[LogGuess | None, tuple[str, ...]]:
    if looked.tables is None:
        return None, ()
    predictions, outcomes = guess_tables(
        model.name,
        looked.tables.values(),
        said=own.get("table") or places.table,
        outcomes=own.get("outcomes_table") or places.outcomes_table,
    )
    if predictions.value is None or predictions.value not in looked.tables:
        return None, (f"{predictions.reason}: {'say which with --table' if predictions.choices else 'name it with --table'}",)
    trouble = []
    if outcomes.undecided:
        trouble.append(f"{outcomes.reason}: say which with --outcomes")
    table, truth = looked.tables[predictions.value], looked.tables.get(outcomes.value or "")
    found = _with_answers(guess_log(model, table, truth), own)
    outcome = found.outcomes["outcome"]
    if outcome.value is None and not outcome.choices and not outcomes.undecided:
        trouble.append(f"no outcome column in {table.name if truth is None else truth.name}: nothing can be measured against the truth "
                       "until one is named with --outcomes TABLE, or under outcomes in the policy")  # fmt: skip
    return found, (*trouble, *found.trouble, *_versions(found, table, model))


def _with_answers(log: LogGuess, own: Mapping[str, str]) -> LogGuess:
    def of(prefix: str, guesses: Mapping[str, Guess]) -> dict[str, Guess]:
        return answers(guesses, {key.removeprefix(prefix): value for key, value in own.items() if key.startswith(prefix)})

    model_value = own.get("model_value", log.model_value)
    column = log.model_column
    if log.model_value is None and model_value is not None:
        column = replace(column, value=column.choices[0] if column.choices else column.value, choices=())
    positive = answers({"positive": log.positive}, own)["positive"]
    negative = log.negative
    if "positive" in own:
        negative = tuple(v for v in log.positive.choices if v not in own["positive"].split(", "))
    return replace(
        log,
        predictions=of("columns.", log.predictions),
        outcomes=of("outcomes.", log.outcomes),
        positive=positive,
        negative=negative,
        model_column=column,
        model_value=model_value,
    )


def _versions(log: LogGuess, table: TableSeen, model: RegisteredModel) -> tuple[str, ...]:
    """Versions that a log writes otherwise than the registry does: no prediction would then be of any version."""
    column = table.column(log.predictions["version"].value or "")
    if column is None or not column.values or not model.versions or set(column.values) & set(model.versions):
        return ()
    return (f"{table.name}: {log.predictions['version'].reason}",)


def open_parts(guess: ModelGuess) -> dict[str, Guess]:
    """What a person must say before the model is measured, by the part of the policy."""
    found: dict[str, Guess] = {}
    if guess.serving is not None:
        found["serving_alias"] = guess.serving
    if guess.objects is not None:
        found["deployment"] = guess.objects.deployment
    if guess.log is not None:
        needed = ["key", "at", *([] if guess.log.predictions["label"].value else ["score", "label"])]
        found |= {f"columns.{part}": guess.log.predictions[part] for part in needed}
        found |= {f"outcomes.{part}": g for part, g in guess.log.outcomes.items() if part in ("key", "outcome")}
        found["positive"] = guess.log.positive
        if guess.log.model_column.undecided:
            table_values = guess.log.model_column
            found["model_value"] = table_values
    return {part: g for part, g in found.items() if g.undecided}
