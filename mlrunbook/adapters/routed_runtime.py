"""The runtime of each model, by what policy says of its serving; those of which it says nothing have that of MLRUNBOOK_RUNTIME."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any

from mlrunbook.domain.actions import Action
from mlrunbook.domain.observed import Instance, Resources, Revision, ServingConfig, ServingState
from mlrunbook.domain.policy.connections import Serving
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.ports import ServingRuntime


class RoutedRuntime:
    """`ports.ServingRuntime`. `make` makes the runtime of a kind, once it is needed."""

    def __init__(self, policy: Policy, default: ServingRuntime, make: Callable[[Serving], ServingRuntime]) -> None:
        self._policy, self._default, self._make = policy, default, cache(make)

    def of(self, model: str) -> ServingRuntime:
        parts = self._policy.rules_of(model).platform
        return self._default if parts is None or parts.serving is None else self._make(parts.serving)

    def observe(self, model: str) -> ServingState:
        return self.of(model).observe(model)

    def scale(self, model: str, *, replicas: int) -> None:
        self.of(model).scale(model, replicas=replicas)

    def route(self, model: str, *, version: str | None) -> None:
        self.of(model).route(model, version=version)

    def read_config(self, model: str) -> ServingConfig:
        return self.of(model).read_config(model)

    def write_config(self, model: str, changes: Mapping[str, Any], *, expected_revision: str) -> ServingConfig:
        return self.of(model).write_config(model, changes, expected_revision=expected_revision)

    def restart(self, model: str, *, restart_id: str) -> None:
        self.of(model).restart(model, restart_id=restart_id)

    def logs(self, model: str, *, tail: int = 500, since: datetime | None = None) -> str:
        return self.of(model).logs(model, tail=tail, since=since)

    def instances(self, model: str) -> Sequence[Instance]:
        return self.of(model).instances(model)

    def resources(self, model: str) -> Resources:
        return self.of(model).resources(model)

    def revisions(self, model: str) -> Sequence[Revision]:
        return self.of(model).revisions(model)

    def undo_rollout(self, model: str, *, revision: int) -> None:
        self.of(model).undo_rollout(model, revision=revision)

    def dry_run(self, model: str, actions: Sequence[Action]) -> Sequence[str]:
        return self.of(model).dry_run(model, actions)

    def isolate(self, model: str, *, isolated: bool) -> None:
        self.of(model).isolate(model, isolated=isolated)

    def preserve(self, model: str) -> Mapping[str, bytes]:
        return self.of(model).preserve(model)
