"""How the world differs from what the policy says of it: what is gone, renamed, of another kind, undecided, or new."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches

from mlrunbook.domain.connecting import names
from mlrunbook.domain.connecting.guesses import OPEN
from mlrunbook.domain.connecting.model import clock_trouble
from mlrunbook.domain.connecting.names import Role
from mlrunbook.domain.connecting.seen import ClusterSeen, ColumnSeen, MetricsSeen, RegisteredModel, TableSeen, ViewSeen
from mlrunbook.domain.policy.cluster import ClusterObjects
from mlrunbook.domain.policy.connections import Columns, LivePart, PredictionsPart, RegistryPart

_METRIC = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*\{")
_ROLES: Mapping[str, Role] = {role.part: role for role in (names.AT, names.SCORE, names.THRESHOLD, names.DAY)}


@dataclass(frozen=True)
class Drift:
    """`part`: the key below the model in the policy. `said`: what differs; `fix`: what to do."""

    model: str
    part: str
    said: str
    fix: str


def of_registry(model: str, part: RegistryPart, there: Collection[RegisteredModel]) -> Iterator[Drift]:
    name = part.name or model
    found = next((m for m in there if m.name == name), None)
    if found is None:
        yield Drift(model, "registry", f"{part.connection} has no model {name} any more{_meant(name, [m.name for m in there])}",
                    "correct registry.name, or take the model out")  # fmt: skip
    elif part.serving_alias == OPEN:
        yield Drift(model, "registry.serving_alias", f"nobody has said which alias serves; there are {_list(found.aliases)}", "name it")
    elif part.serving_alias not in found.aliases:
        newest = found.versions[-1] if found.versions else "1"
        said = f"no version of {name} carries the alias {part.serving_alias} (aliases: {_list(found.aliases)})"
        yield Drift(model, "registry.serving_alias", said, f"set it on the version that serves (the newest is {newest}), or name another")


def of_log(model: str, part: PredictionsPart, there: Mapping[str, TableSeen], now: datetime) -> Iterator[Drift]:
    predictions = there.get(part.table or part.query or "")
    if predictions is None:
        yield Drift(model, "predictions.table", f"{part.connection} has no table {part.table} any more", "correct predictions.table")
        return
    called = part.table or "the query"
    columns = {name: getattr(part.columns, name) for name in vars(Columns()) if name != "features"}
    columns |= {f"features {name}": name for name in part.columns.features} | {"model_column": part.model_column}
    yield from _columns(model, "predictions.columns", called, columns, predictions)
    truth, of = predictions, {"outcome": part.outcomes.outcome, "reported_at": part.outcomes.reported_at}
    if apart := part.outcomes_table or part.outcomes_query:
        if apart not in there:
            said = f"{part.connection} has no table {part.outcomes_table} any more"
            yield Drift(model, "predictions.outcomes_table", said, "correct predictions.outcomes_table")
            return
        truth, of = there[apart], of | {"key": part.outcomes.key, "day": part.outcomes.day}
    elif _column(predictions, of["reported_at"] or "") is None:
        of["reported_at"] = None  # left out is none, in the predictions' own table
    yield from _columns(model, "predictions.outcomes", part.outcomes_table or called, of, truth)
    undecided = [v for v in (*part.positive, part.model_value or "") if v == OPEN]
    if undecided:
        yield Drift(model, "predictions", "nobody has said yet what yes is, or which rows are this model's", "replace TODO in it")
    if (clock := clock_trouble(predictions, part.columns.at, now, part.time_zone)) and part.time_zone == "UTC":
        yield Drift(model, "predictions.time_zone", clock, "correct predictions.time_zone")


def _columns(model: str, at: str, table: str, wanted: Mapping[str, str | None], seen: TableSeen) -> Iterator[Drift]:
    for part, name in wanted.items():
        if name is None:
            continue
        key = f"{at}.{part.partition(' ')[0]}"
        if name == OPEN:
            yield Drift(model, key, f"nobody has said which column of {table} it is", f"one of {_list(c.name for c in seen.columns)}")
            continue
        column = _column(seen, name)
        role = _ROLES.get(part)
        if column is None:
            said = f"{table} has no column {name} any more{_meant(name, [c.name for c in seen.columns])}"
            yield Drift(model, key, said, f"correct {key}")
        elif role is not None and not role.holds(column) and not (part == "score" and column.holds in names.NUMERIC):
            yield Drift(model, key, f"{table}: {name} holds {column.holds} now, not {role.wanted}", "CAST it in predictions.query")


def _column(table: TableSeen, name: str) -> ColumnSeen | None:
    return table.column(name) or next((c for c in table.columns if c.name.lower() == name.lower()), None)


def of_live(model: str, part: LivePart, seen: MetricsSeen) -> Iterator[Drift]:
    for figure in ("latency_p95_s", "error_rate", "requests", "null_rate"):
        expression = getattr(part, figure)
        gone = [m for m in dict.fromkeys(_METRIC.findall(expression or "")) if m not in seen.names]
        if gone:
            said = f"{part.connection} has no metric {gone[0]} any more{_meant(gone[0], sorted(seen.names))}"
            yield Drift(model, f"live.{figure}", said, f"correct live.{figure}")


def of_cluster(model: str, objects: ClusterObjects, seen: ClusterSeen) -> Iterator[Drift]:
    deployments = [d.name for d in seen.deployments]
    wanted = [("scaled_deployment", "Deployment", objects.scaled_deployment, deployments)]
    if objects.restarted_deployment != objects.scaled_deployment:
        wanted.append(("restarted_deployment", "Deployment", objects.restarted_deployment, deployments))
    if objects.service is not None and not _may_not(seen, "services"):
        wanted.append(("service", "Service", objects.service, [s.name for s in seen.services]))
    if objects.config_map is not None and not _may_not(seen, "configmaps"):
        wanted.append(("config_map", "ConfigMap", objects.config_map, [c.name for c in seen.config_maps]))
    for key, kind, name, there in wanted:
        if name not in there:
            said = f"namespace {seen.namespace} has no {kind} {name} any more{_meant(name, there)}"
            yield Drift(model, f"cluster.{key}", said, f"correct cluster.{key}")
    own = next((d for d in seen.deployments if d.name == objects.scaled_deployment), None)
    if own is not None and not objects.pod_selector.items() <= own.pod_labels.items():
        said = f"the pods of {own.name} do not carry {_list(f'{k}={v}' for k, v in objects.pod_selector.items())} any more"
        yield Drift(model, "cluster.pod_selector", said, "correct cluster.pod_selector")
    if own is not None and own.containers and objects.container not in own.containers:
        said = f"{own.name} has no container {objects.container} any more{_meant(objects.container, list(own.containers))}"
        yield Drift(model, "cluster.container", said, "correct cluster.container")


def _may_not(seen: ClusterSeen, resource: str) -> bool:
    return any(resource in said for said in seen.lacking)


def of_views(model: str, wanted: Iterable[str], seen: Collection[ViewSeen]) -> Iterator[Drift]:
    there = [v.name for v in seen]
    for view in wanted:
        if view not in there:
            yield Drift(model, "feature_views", f"the feature store has no view {view} any more{_meant(view, there)}", "correct it")


def _meant(name: str, there: list[str]) -> str:
    close = get_close_matches(name, there, 1)
    return f" (is it {close[0]} now?)" if close else f" (there are: {_list(there)})"


def _list(found: Iterable[str]) -> str:
    all_ = list(found)
    return (", ".join(all_[:8]) + (" and more" if len(all_) > 8 else "")) or "none"
