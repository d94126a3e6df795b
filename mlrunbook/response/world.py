"""Everything that a step of the response reaches: the store, the policy, the outside world, the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import Connection, Engine

from mlrunbook.adapters.reports import drift
from mlrunbook.base import db
from mlrunbook.base.anchors import Anchors
from mlrunbook.base.clocks import elapsed
from mlrunbook.domain.elapsed import Elapsed
from mlrunbook.domain.policy.judging import FeatureStorePolicy
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.ports import FeatureStore, ModelPlatform, Notifier, Orchestrator, ServingRuntime, Trainer
from mlrunbook.response.clock_watch import ClockWatch
from mlrunbook.response.known_models import KnownModels


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
    patience_s: float = 60.0  # how long a run waits for outcomes before the dispatcher starts a later one
    sleep: Callable[[float], None] = time.sleep
    elapsed: Callable[[], Elapsed] = elapsed  # how much time has passed, while `now` may be set by anybody
    clock_watch: ClockWatch = field(default_factory=ClockWatch, repr=False, compare=False)
    draw_drift_page: Callable[..., bytes] = drift.draw  # inputs before, inputs now, the verdict: an HTML page
    public_url: str | None = None  # where people's browsers reach the console; None: nothing links to it
    anchors: Anchors | None = None  # None: heads of chains go out unsigned and are kept nowhere
    features_by: Callable[[FeatureStorePolicy], FeatureStore] | None = None  # that of a model which reads another service or other views
    known_models: KnownModels = field(default=None, repr=False, compare=False)  # type: ignore[assignment]  # always that of `platform`

    def __post_init__(self) -> None:
        if self.known_models is None or self.known_models.platform is not self.platform:
            object.__setattr__(self, "known_models", KnownModels(self.platform, self.now))

    def of(self, model: str) -> World:
        """This world as it is for one model: its policy, and the features that it reads."""
        policy, features = self.policy.for_model(model), self.features
        if self.features_by is not None and features is not None and policy.features != self.policy.features:
            features = self.features_by(policy.features)
        return self if policy is self.policy else replace(self, policy=policy, features=features)

    def transaction(self) -> AbstractContextManager[Connection]:
        """Where the clock was set since the last one, the times in the store are moved first: nothing is read or written in between."""
        self.clock_watch.settle(self.engine, self.now, self.elapsed)
        return db.transaction(self.engine)
