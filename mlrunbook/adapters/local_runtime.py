"""The serving runtime of one machine: writes the model server's desired state, which `mlrunbook up` alone reconciles.

Verbs change `<data>/serving/desired.json` and the config file; `observe` asks the running server, never those files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from mlrunbook import statefile
from mlrunbook.adapters import local_evidence
from mlrunbook.domain.actions import Action, Configure, Scale, UndoRollout
from mlrunbook.domain.errors import Invalid, NotFound, Refused, Transient
from mlrunbook.platform import serving_config
from mlrunbook.ports import Instance, Resources, Revision, ServingConfig, ServingState
from mlrunbook.settings import Settings

ANSWERS_WITHIN_S = 3.0  # on the same machine: one that takes longer hangs


def desired_state(path: Path) -> dict[str, Any]:
    """What the model server shall be: replicas 0 or 1, route_version, restart_id, isolated. One server where nobody asked for anything."""
    return {"replicas": 1, "route_version": None, "restart_id": None, "isolated": False} | (statefile.read(path) if path.exists() else {})


class LocalRuntime:
    """`mlrunbook.ports.ServingRuntime` for the one model server on this machine; `model` says whose it is only in messages."""

    def __init__(self, config: Settings, *, transport: httpx.BaseTransport | None = None) -> None:
        self._config = config
        # A connection each time: a kept one would still be answered by a server that no longer accepts new ones.
        self._http = httpx.Client(
            base_url=config.model_server_url,
            timeout=min(config.http_timeout_s, ANSWERS_WITHIN_S),
            limits=httpx.Limits(max_keepalive_connections=0),
            transport=transport,
            trust_env=False,
        )

    def observe(self, model: str) -> ServingState:
        """What runs now. A refused connection means none does; the route is then the one the next server will take. A server that
        hangs or is broken is Transient: we cannot tell."""
        wanted = self._desired()
        try:
            answer = self._http.get("/health")
            health = answer.json()
        except httpx.ConnectError:
            return ServingState(int(wanted["replicas"]), 0, wanted["route_version"], None, None, None, wanted["isolated"])
        except (httpx.HTTPError, ValueError) as error:
            raise Transient(f"the model server of {model} at {self._http.base_url} gives no usable answer: {error!r}") from error
        config = health.get("config") or {}
        return ServingState(
            replicas=int(wanted["replicas"]),
            ready_replicas=int(answer.is_success and health.get("status") == "ok"),
            route_version=health.get("routeVersion"),
            restart_id=health.get("restartId"),
            version=health.get("version"),
            config=ServingConfig(
                revision=str(health["configRevision"]),
                threshold=float(config["threshold"]),
                human_approval=config["humanApproval"],
                auto_work_orders=config["autoWorkOrders"],
                auto_scheduling=config["autoScheduling"],
            )
            if config
            else None,
            isolated=bool(health.get("isolated")),
        )

    def scale(self, model: str, *, replicas: int) -> None:
        _one_or_none(model, replicas)
        self._set({"replicas": replicas})

    def route(self, model: str, *, version: str | None) -> None:
        self._set({"route_version": version})

    def restart(self, model: str, *, restart_id: str) -> None:
        self._set({"restart_id": restart_id})

    def read_config(self, model: str) -> ServingConfig:
        try:
            return serving_config.read(self._config.serving_config_file)
        except NotFound as error:
            raise NotFound(f"{model} has no config yet: no version of it has been served here") from error

    def write_config(self, model: str, changes: Mapping[str, Any], *, expected_revision: str) -> ServingConfig:
        serving_config.check_changes(model, changes)
        statefile.patch(self._config.serving_config_file, changes, expected_revision=expected_revision)
        return self.read_config(model)

    def logs(self, model: str, *, tail: int = 500, since: datetime | None = None) -> str:
        try:
            return local_evidence.tail_of(self._config.serving_log_file, tail, since)
        except FileNotFoundError as error:
            raise NotFound(f"the model server of {model} has written no log at {self._config.serving_log_file}") from error

    def isolate(self, model: str, *, isolated: bool) -> None:
        """NotFound when the server here serves another model: that one has done nothing wrong."""
        with contextlib.suppress(httpx.HTTPError, ValueError):
            served = self._http.get("/health").json().get("model")
            if served not in (None, model):
                raise NotFound(f"no server of {model} runs on this machine, only one of {served}: isolate it where it runs")
        self._set({"isolated": isolated})

    def instances(self, model: str) -> list[Instance]:
        seen = self.observe(model)
        if not seen.replicas:
            return []
        ready = bool(seen.ready_replicas)
        return [Instance("model-server", ready, 0, None if ready else "it does not answer, or has no version to serve")]

    def resources(self, model: str) -> Resources:
        """Of the whole machine: the process has no limit of its own."""
        return local_evidence.resources(self._http)

    def revisions(self, model: str) -> list[Revision]:
        return []

    def undo_rollout(self, model: str, *, revision: int) -> None:
        raise Refused(f"this machine keeps no rollout history of {model}: roll back to a registered version instead")

    def rehearse(self, model: str, actions: Sequence[Action]) -> list[str]:
        for action in actions:
            if isinstance(action, Scale):
                _one_or_none(model, action.replicas)
            elif isinstance(action, Configure):
                serving_config.check_changes(model, action.settings)
            elif isinstance(action, UndoRollout):
                self.undo_rollout(model, revision=action.revision)
        return []

    def preserve(self, model: str) -> dict[str, bytes]:
        return local_evidence.collect(self._config, self._http)

    def _desired(self) -> dict[str, Any]:
        return desired_state(self._config.serving_state_file)

    def _set(self, changes: Mapping[str, Any]) -> None:
        """Write only what differs: the same verb again changes nothing."""
        current = self._desired()
        if any(current[key] != value for key, value in changes.items()):
            statefile.patch(self._config.serving_state_file, changes)


def _one_or_none(model: str, replicas: int) -> None:
    if replicas not in (0, 1):
        raise Invalid(f"one machine runs 0 or 1 servers of {model}, not {replicas}", field="replicas")
