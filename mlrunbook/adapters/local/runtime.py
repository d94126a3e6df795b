"""The serving runtime of one machine: writes the model server's desired state, which `mlrunbook up` alone reconciles.

Verbs change `<data>/serving/desired.json` and the config file; `observe` asks the running server, never those files. All of it is for the
model that the desired state names, and Refused for any other: there is one server, one config and one log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import httpx

from mlrunbook.adapters.fields import Fields, parsed, understood
from mlrunbook.adapters.local import evidence, serving_config
from mlrunbook.adapters.local.serving_state import desired_of
from mlrunbook.base import json_file
from mlrunbook.base.settings import Settings
from mlrunbook.domain.actions import Action, Configure, Scale, UndoRollout, check_own
from mlrunbook.domain.errors import Invalid, NotFound, Refused, Transient
from mlrunbook.domain.observed import Instance, Resources, Revision, ServingConfig, ServingState
from mlrunbook.ports import MISSING

ANSWERS_WITHIN_S = 3.0  # on the same machine: one that takes longer hangs


class LocalRuntime:
    """`mlrunbook.ports.ServingRuntime` for the one model server on this machine."""

    def __init__(self, config: Settings, *, transport: httpx.BaseTransport | None = None) -> None:
        self._config = config
        # A connection each time: a kept one would still be answered by a server that no longer accepts new ones.
        self._http = httpx.Client(
            base_url=config.model_server_url,
            headers={"Authorization": f"Bearer {config.platform_token.get_secret_value()}"} if config.platform_token else {},
            timeout=min(config.http_timeout_s, ANSWERS_WITHIN_S),
            limits=httpx.Limits(max_keepalive_connections=0),
            transport=transport,
            trust_env=False,
        )

    @understood("the model server")
    def observe(self, model: str) -> ServingState:
        """What runs now. A refused connection means none does; the route is then the one the next server will take. A server that
        hangs or is broken is Transient: we cannot tell."""
        wanted, health = self._ours(model), self._health(model)
        if health is None:
            return ServingState(int(wanted["replicas"]), 0, wanted["route_version"], None, None, None, wanted["isolated"])
        b = Fields(health)
        return ServingState(
            replicas=int(wanted["replicas"]),
            ready_replicas=int(health.get("status") == "ok"),
            route_version=b.id_if_any("routeVersion"),
            restart_id=b.id_if_any("restartId"),
            version=b.id_if_any("version"),
            config=_loaded(b) if health.get("config") else None,
            isolated=bool(b.maybe("isolated", b.flag)),
        )

    def scale(self, model: str, *, replicas: int) -> None:
        self._ours(model)
        _one_or_none(model, replicas)
        self._set(model, {"replicas": replicas})

    def route(self, model: str, *, version: str | None) -> None:
        self._set(model, {"route_version": version})

    def restart(self, model: str, *, restart_id: str) -> None:
        self._set(model, {"restart_id": restart_id})

    def read_config(self, model: str) -> ServingConfig:
        self._ours(model)
        try:
            return serving_config.read(self._config.serving_config_file)
        except NotFound as error:
            raise NotFound(f"{model} has no config yet: no version of it has been served here") from error

    def write_config(self, model: str, changes: Mapping[str, Any], *, expected_revision: str) -> ServingConfig:
        self._ours(model)
        serving_config.check_changes(model, changes)
        json_file.patch(self._config.serving_config_file, changes, expected_revision=expected_revision)
        return self.read_config(model)

    def logs(self, model: str, *, tail: int = 500, since: datetime | None = None) -> str:
        self._ours(model)
        try:
            return evidence.tail_of(self._config.serving_log_file, tail, since)
        except FileNotFoundError as error:
            raise NotFound(f"the model server of {model} has written no log at {self._config.serving_log_file}") from error

    def isolate(self, model: str, *, isolated: bool) -> None:
        self._set(model, {"isolated": isolated})

    def instances(self, model: str) -> list[Instance]:
        if not self._ours(model)["replicas"]:
            return []
        health = self._health(model) or {}
        return [Instance("model-server", health.get("status") == "ok", 0, _problem(health))]

    def resources(self, model: str) -> Resources:
        """Of the whole machine: the process has no limit of its own."""
        self._ours(model)
        return evidence.resources(self._http)

    def revisions(self, model: str) -> list[Revision]:
        self._ours(model)
        return []

    def undo_rollout(self, model: str, *, revision: int) -> None:
        self._ours(model)
        raise Refused(f"this machine keeps no rollout history of {model}: roll back to a registered version instead")

    def dry_run(self, model: str, actions: Sequence[Action]) -> list[str]:
        self._ours(model)
        check_own(model, actions)
        for action in actions:
            if isinstance(action, Scale):
                _one_or_none(model, action.replicas)
            elif isinstance(action, Configure):
                serving_config.check_changes(model, action.settings)
            elif isinstance(action, UndoRollout):
                self.undo_rollout(model, revision=action.revision)
        return []

    def preserve(self, model: str) -> dict[str, bytes]:
        try:
            self._ours(model)
        except Refused as error:
            return {f"serving{MISSING}": str(error).encode()}
        return evidence.collect(self._config, self._http)

    def _ours(self, model: str) -> dict[str, Any]:
        """The desired state of the server, which is this model's. Refused for any other model."""
        return desired_of(self._config.serving_state_file, model)

    def _health(self, model: str) -> dict[str, Any] | None:
        """What the server says of itself; None: it refuses connections, so none runs."""
        try:
            answer = self._http.get("/health")
            health = dict(parsed(answer.content))
            if answer.status_code in (401, 403):
                raise Refused(f"the model server of {model} refuses MLRUNBOOK_PLATFORM_TOKEN: {health.get('detail')}")
        except httpx.ConnectError:
            return None
        except (httpx.HTTPError, ValueError, TypeError) as error:
            raise Transient(f"the model server of {model} at {self._http.base_url} gives no usable answer: {error!r}") from error
        if (serves := health.get("model", model)) != model:
            raise Refused(f"the server at {self._http.base_url} answers for {serves}, not for {model}: look which stack has that port")
        return health if answer.is_success else health | {"status": "failing"}

    def _set(self, model: str, changes: Mapping[str, Any]) -> None:
        """Write only what differs: the same verb again changes nothing."""
        current = self._ours(model)
        if any(current[key] != value for key, value in changes.items()):
            json_file.patch(self._config.serving_state_file, changes)


def _loaded(health: Fields) -> ServingConfig:
    config = health.part("config")
    return ServingConfig(
        revision=health.text("configRevision"),
        threshold=config.share("threshold"),
        human_approval=config.flag("humanApproval"),
        auto_work_orders=config.flag("autoWorkOrders"),
        auto_scheduling=config.flag("autoScheduling"),
    )


def _problem(health: Mapping[str, Any]) -> str | None:
    """Why it does not serve, or not what it shall, in its own words: they name the version."""
    version, not_loaded = health.get("version"), health.get("notLoaded")
    if isinstance(not_loaded, dict):
        instead = f"{version} serves instead" if version else "nothing serves"
        return f"cannot load {not_loaded.get('version')}, {instead}: {not_loaded.get('error')}"
    if health.get("status") == "ok":
        return None
    return "it has no version to serve" if health else "it does not answer"


def _one_or_none(model: str, replicas: int) -> None:
    if replicas not in (0, 1):
        raise Invalid(f"one machine runs 0 or 1 servers of {model}, not {replicas}", field="replicas")
