"""Puts the real parts behind the ports, from settings and policy: the one place that knows which adapter is which."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine

from mlrunbook import db
from mlrunbook.domain.policy import Policy
from mlrunbook.known_models import KnownModels
from mlrunbook.ports import FeatureStore, ModelPlatform, Notifier, Orchestrator, ServingRuntime, Trainer
from mlrunbook.settings import Settings, channel_address, settings

if TYPE_CHECKING:
    from mlrunbook.adapters.kubernetes_cluster import Login


@dataclass(frozen=True)
class World:
    """Everything outside the domain that a task or the dispatcher may touch."""

    engine: Engine
    platform: ModelPlatform
    runtime: ServingRuntime
    notifier: Notifier
    orchestrator: Orchestrator
    policy: Policy
    lease_s: float
    now: Callable[[], datetime]
    features: FeatureStore | None = None  # None: no feature store is configured
    trainer: Trainer | None = None
    settle_s: float = 30.0  # how long a change may take to show when read back
    known_models: KnownModels = field(default=None, repr=False, compare=False)  # type: ignore[assignment]  # always that of `platform`

    def __post_init__(self) -> None:
        if self.known_models is None or self.known_models.platform is not self.platform:
            object.__setattr__(self, "known_models", KnownModels(self.platform, self.now))

    def transaction(self) -> AbstractContextManager[Connection]:
        return db.transaction(self.engine)


def utc_now() -> datetime:
    return datetime.now(UTC)


@cache
def world() -> World:
    """The process's world."""
    from mlrunbook.adapters.feast_store import FeastStore
    from mlrunbook.adapters.notify import ChannelNotifier
    from mlrunbook.adapters.platform import HttpPlatform
    from mlrunbook.adapters.prefect_api import PrefectApi
    from mlrunbook.adapters.training_process import TrainingProcess

    config = settings()
    return World(
        engine=db.engine(),
        platform=HttpPlatform(config.platform_url, _secret(config), timeout_s=config.http_timeout_s),
        runtime=runtime(config, policy()),
        notifier=ChannelNotifier(config.messages_dir, channel_address),
        orchestrator=PrefectApi(
            config.prefect_api_url or "http://127.0.0.1:4200/api", config.prefect_auth.get_secret_value() if config.prefect_auth else None
        ),
        policy=policy(),
        lease_s=config.lease_s,
        now=utc_now,
        trainer=TrainingProcess(policy().training, config.data / "training", home=config.home),
        features=FeastStore(config.feature_repo, policy().features) if config.feature_repo else None,
    )


def runtime(config: Settings, policy: Policy) -> ServingRuntime:
    """Where the model server runs, by MLRUNBOOK_RUNTIME. Nothing is asked yet, so a cluster that is away fails no start."""
    if config.runtime == "local":
        from mlrunbook.adapters.local_runtime import LocalRuntime

        return LocalRuntime(config)
    from mlrunbook.adapters.kubernetes import KubernetesRuntime
    from mlrunbook.adapters.kubernetes_cluster import Cluster, login

    def sign_in() -> Login:
        return login(config.kube_context, config.kube_namespace)

    return KubernetesRuntime(Cluster(sign_in, timeout_s=config.http_timeout_s), policy.objects)


@cache
def policy() -> Policy:
    """The policy file of the checkout, or the runbook's defaults where there is none."""
    from mlrunbook.policy_file import load

    config = settings()
    path = config.policy or config.home / "runbook.yaml"
    return load(path) if config.policy or path.exists() else Policy()


def _secret(config: Settings) -> str | None:
    return config.platform_token.get_secret_value() if config.platform_token else None
