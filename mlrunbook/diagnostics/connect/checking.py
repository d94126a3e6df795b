"""`mlrunbook connect --check`: the policy against the world, later."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from mlrunbook.base.settings import Settings
from mlrunbook.diagnostics.connect.looking import Looked, Named, Places, look
from mlrunbook.diagnostics.connect.rendering import Names
from mlrunbook.domain.connecting import drift
from mlrunbook.domain.connecting.drift import Drift
from mlrunbook.domain.connecting.model import model_id
from mlrunbook.domain.policy.connections import Kind, PlatformParts, Serving, connection_variable
from mlrunbook.domain.policy.patterns import is_pattern
from mlrunbook.domain.policy.policy import Policy

CLUSTER, FEATURES = "the cluster", "the feature store"


@dataclass(frozen=True)
class Checked:
    """`problems`: parts that could not be looked at, each with what to do."""

    drifts: tuple[Drift, ...]
    problems: Mapping[str, str]
    models: tuple[str, ...]


def check(policy: Policy, settings: Settings, env: Mapping[str, str], now: datetime) -> Checked:
    """Every model that names parts of its platform, or objects of a cluster."""
    models = {name: rules for name, rules in policy.models.items() if not is_pattern(name)}
    composed = {name: rules.platform for name, rules in models.items() if rules.platform is not None}
    looked = {name: _look(policy, name, env, now) for name in _used(composed)}
    mapped = any(rules.cluster is not None and _in_cluster(rules.platform) for rules in models.values())
    if mapped and (settings.runtime == "kubernetes" or settings.kube_context):
        where = Places(ask_cluster=True, kube_context=settings.kube_context, namespace=settings.kube_namespace)
        looked[CLUSTER] = look(where, now)
    if settings.feature_repo is not None:
        looked[FEATURES] = look(Places(feast=settings.feature_repo), now)
    problems = {name: said for name, one in looked.items() for said in one.problems.values()}
    found = [d for name, parts in composed.items() for d in _of_parts(name, parts, looked, now)]
    for name, rules in models.items():
        seen = looked.get(CLUSTER, Looked()).cluster
        if rules.cluster is not None and seen is not None and _in_cluster(rules.platform):
            found += drift.of_cluster(name, rules.cluster, seen)
        if rules.feature_views and (there := looked.get(FEATURES, Looked()).views) is not None:
            found += drift.of_views(name, rules.feature_views, there)
    return Checked((*found, *_new(policy, looked)), problems, tuple(models))


def _in_cluster(parts: PlatformParts | None) -> bool:
    return parts is None or parts.serving in (None, Serving.KUBERNETES)


def _used(composed: Mapping[str, PlatformParts]) -> tuple[str, ...]:
    parts = [part for one in composed.values() for part in (one.registry, one.predictions, one.live) if part is not None]
    return tuple(dict.fromkeys(part.connection for part in parts))


def places(policy: Policy, name: str, env: Mapping[str, str]) -> Places | None:
    """Where the connection leads; None where no address is set."""
    address = env.get(connection_variable(name))
    if not address:
        return None
    token, of = env.get(connection_variable(name) + "_TOKEN"), policy.connections[name]
    tokens = {name: token} if token else {}
    authorities = {name: of.ca_file} if of.ca_file else {}
    match of.kind:
        case Kind.MLFLOW:
            ours = ((at, rules.platform.registry) for at, rules in policy.models.items() if rules.platform and rules.platform.registry)
            models = tuple(part.name or at for at, part in ours if part.connection == name)
            return Places(Names(registry=name), mlflow=address, tokens=tokens, ca_files=authorities, models=models)
        case Kind.SQL:
            return Places(Names(predictions=name), predictions=address, tokens=tokens, ca_files=authorities)
        case Kind.PROMETHEUS:
            return Places(Names(live=name), prometheus=address, tokens=tokens, ca_files=authorities)
    return Places()


def _look(policy: Policy, name: str, env: Mapping[str, str], now: datetime) -> Looked:
    found = places(policy, name, env)
    if found is None:
        return Looked(problems={name: f"{connection_variable(name)} is not set: give it the address of {name}"})
    return look(found, now, named=_named(policy, name))


def _named(policy: Policy, connection: str) -> Named:
    parts = [r.platform.predictions for r in policy.models.values() if r.platform and r.platform.predictions]
    ours = [part for part in parts if part.connection == connection]
    tables = [t for part in ours for t in (part.table, part.outcomes_table) if t]
    queries = [q for part in ours for q in (part.query, part.outcomes_query) if q]
    return Named(tuple(dict.fromkeys(tables)), tuple(dict.fromkeys(queries)))


def _of_parts(model: str, parts: PlatformParts, looked: Mapping[str, Looked], now: datetime) -> Iterator[Drift]:
    if parts.registry is not None and (models := looked[parts.registry.connection].models) is not None:
        yield from drift.of_registry(model, parts.registry, models)
    if parts.predictions is not None and (tables := looked[parts.predictions.connection].tables) is not None:
        yield from drift.of_log(model, parts.predictions, tables, now)
    if parts.live is not None and (metrics := looked[parts.live.connection].metrics) is not None:
        yield from drift.of_live(model, parts.live, metrics)


def _new(policy: Policy, looked: Mapping[str, Looked]) -> Iterator[Drift]:
    """Models of a registry that no entry of the policy speaks of."""
    mapped = {
        (r.platform.registry.connection, r.platform.registry.name or name)
        for name, r in policy.models.items()
        if r.platform and r.platform.registry
    }
    for connection, one in looked.items():
        for model in one.models or ():
            if (connection, model.name) not in mapped and not policy.names(model_id(model.name)):
                said = f"{connection} has a model {model.name} that the policy does not speak of"
                yield Drift(model_id(model.name), "models", said, f"mlrunbook connect --model {model.name}")
