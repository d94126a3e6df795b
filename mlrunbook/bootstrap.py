"""Puts the real parts behind the ports, from settings and policy: the one place that knows which adapter is which."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlrunbook.base import db
from mlrunbook.base.anchors import Anchors
from mlrunbook.base.settings import Settings, channel_address, connection_address, connection_token, settings
from mlrunbook.domain.errors import Invalid, NotFound, Transient
from mlrunbook.domain.policy.connections import LivePart, PredictionsPart, connection_variable
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.ports import LiveFigures, ModelPlatform, PredictionLog, Registry, Replayer, ServingRuntime
from mlrunbook.response.world import World

if TYPE_CHECKING:
    from mlrunbook.adapters.kubernetes.cluster import Login
    from mlrunbook.adapters.mlflow.client import MlflowClient


log = logging.getLogger(__name__)


def utc_now() -> datetime:
    return datetime.now(UTC)


_given: ContextVar[World | None] = ContextVar("world", default=None)


def world() -> World:
    """The process's world, or the one that `using` gives."""
    return _given.get() or _world()


@contextmanager
def using(given: World) -> Iterator[None]:
    """Run flows of this context on another world, such as one made of files."""
    token = _given.set(given)
    try:
        yield
    finally:
        _given.reset(token)


@cache
def _world() -> World:
    from mlrunbook.adapters.channels.notifier import ChannelNotifier
    from mlrunbook.adapters.feast.store import FeastStore
    from mlrunbook.adapters.local.training_process import TrainingByModel
    from mlrunbook.adapters.prefect.api import PrefectApi

    config = settings()
    serving = runtime(config, policy())
    return World(
        engine=db.engine(),
        platform=platform(config, policy(), serving),
        runtime=serving,
        notifier=ChannelNotifier(config.messages_dir, channel_address),
        orchestrator=PrefectApi(
            config.prefect_api_url or "http://127.0.0.1:4200/api", config.prefect_auth.get_secret_value() if config.prefect_auth else None
        ),
        policy=policy(),
        lease_s=config.lease_s,
        now=utc_now,
        public_url=config.public_url,
        anchors=Anchors(config.anchors_dir, config.chain_keys),
        trainer=TrainingByModel(lambda model: policy().for_model(model).training, config.data / "training", home=config.home),
        features=FeastStore(config.feature_repo, policy().features) if config.feature_repo else None,
        features_by=partial(FeastStore, config.feature_repo) if config.feature_repo else None,
    )


def dispatching(base: World) -> World:
    """`base` with what pages need taken ahead: connections of their own that are open, and a process to deliver with. Requests, however
    many, cannot use these up, nor can they be had no more once descriptors run out."""
    from mlrunbook.adapters.channels.notifier import ChannelNotifier

    engine = db.own_engine(size=8, overflow=32)
    try:
        db.warm(engine)
    except Transient as error:
        log.warning("dispatcher: %s", error)
    if isinstance(base.notifier, ChannelNotifier):
        base.notifier.warm()
    return replace(base, engine=engine)


def platform(config: Settings, policy: Policy, serving: ServingRuntime) -> ModelPlatform:
    """The model platform: the REST one, or composed of what policy names for each model. Nothing is asked yet."""
    from mlrunbook.adapters.model_platform import HttpPlatform

    rest = HttpPlatform(config.platform_url, _secret(config), timeout_s=config.http_timeout_s)
    parts = [rules.platform for rules in policy.models.values() if rules.platform is not None]
    if not parts:
        return rest
    from mlrunbook.adapters.composed_platform import ComposedPlatform, Parts

    is_set = "platform_url" in config.model_fields_set
    clients, logs = _clients(config, policy), _predictions(policy)
    registry = _registry(policy, clients, serving) if any(one.registry for one in parts) else None
    return ComposedPlatform(policy, Parts(rest, is_set, registry, logs, _live(config, policy), _replayer(policy, clients, logs)))


def _replayer(policy: Policy, clients: Callable[[str], MlflowClient], logs: Callable[[str], PredictionLog]) -> Replayer:
    from mlrunbook.adapters.mlflow.replay.replayer import MlflowReplay

    return MlflowReplay(policy, clients, lambda part: logs(part.connection))


def _predictions(policy: Policy) -> Callable[[str], PredictionLog]:
    """By connection; none is opened before it is asked."""

    def part_of(model: str) -> PredictionsPart:
        parts = policy.rules_of(model).platform
        if parts is None or parts.predictions is None:
            raise NotFound(f"policy names no log of predictions for {model} (models.{model}.platform.predictions)")
        return parts.predictions

    @cache
    def log_of(name: str) -> PredictionLog:
        from mlrunbook.adapters.warehouse.log import WarehouseLog

        return WarehouseLog(name, _address(name), part_of, token=connection_token(name))

    return log_of


def _live(config: Settings, policy: Policy) -> Callable[[str], LiveFigures]:
    def part_of(model: str) -> LivePart:
        parts = policy.rules_of(model).platform
        if parts is None or parts.live is None:
            raise NotFound(f"policy names no live figures for {model} (models.{model}.platform.live)")
        return parts.live

    @cache
    def live_of(name: str) -> LiveFigures:
        from mlrunbook.adapters.prometheus.live import PrometheusLive

        token, ca_file = connection_token(name), policy.connections[name].ca_file
        return PrometheusLive(name, _address(name), part_of, token=token, ca_file=ca_file, timeout_s=config.http_timeout_s)

    return live_of


def _address(name: str) -> str:
    if address := connection_address(name):
        return address
    raise Invalid(f"{connection_variable(name)} is not set: give it the address of the connection {name} of the policy")


def _clients(config: Settings, policy: Policy) -> Callable[[str], MlflowClient]:
    from mlrunbook.adapters.mlflow.client import MlflowClient

    @cache
    def client(name: str) -> MlflowClient:
        given = connection_address(name), connection_token(name)
        return MlflowClient(name, *given, ca_file=policy.connections[name].ca_file, timeout_s=config.http_timeout_s)

    return client


def _registry(policy: Policy, clients: Callable[[str], MlflowClient], serving: ServingRuntime) -> Registry:
    from mlrunbook.adapters.mlflow.registry import MlflowRegistry
    from mlrunbook.response.measurement.registry_ledger import StoreLedger

    return MlflowRegistry(policy, clients, StoreLedger(db.engine, utc_now), serving, utc_now)


def runtime(config: Settings, policy: Policy) -> ServingRuntime:
    """Where each model's server runs: by MLRUNBOOK_RUNTIME, but for the models of which policy says otherwise. Nothing is asked yet, so a
    cluster that is away fails no start."""
    default = _runtime_of(config.runtime, config, policy)
    if not any(rules.platform and rules.platform.serving for rules in policy.models.values()):
        return default
    from mlrunbook.adapters.routed_runtime import RoutedRuntime

    return RoutedRuntime(policy, default, lambda kind: default if kind == config.runtime else _runtime_of(kind, config, policy))


def _runtime_of(kind: str, config: Settings, policy: Policy) -> ServingRuntime:
    if kind == "none":
        from mlrunbook.adapters.no_runtime import NoRuntime

        return NoRuntime()
    if kind == "local":
        from mlrunbook.adapters.local.runtime import LocalRuntime

        return LocalRuntime(config)
    from mlrunbook.adapters.kubernetes.cluster import Cluster, login
    from mlrunbook.adapters.kubernetes.runtime import KubernetesRuntime

    def sign_in() -> Login:
        return login(config.kube_context, config.kube_namespace)

    return KubernetesRuntime(Cluster(sign_in, timeout_s=config.http_timeout_s), policy.objects)


@cache
def policy() -> Policy:
    """What this process follows: the policy as it was at its start."""
    return policy_now()


def policy_now() -> Policy:
    """The policy file of the checkout, or the runbook's defaults where there is none."""
    from mlrunbook.base.policy_file import load

    path = policy_path()
    return load(path) if path else Policy()


def policy_path() -> Path | None:
    """The policy file; None: there is none, the defaults hold."""
    config = settings()
    path = config.policy or config.home / "runbook.yaml"
    return path if config.policy or path.exists() else None


def _secret(config: Settings) -> str | None:
    return config.platform_token.get_secret_value() if config.platform_token else None
