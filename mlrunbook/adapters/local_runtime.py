"""The serving runtime of one machine: writes the model server's desired state, which `mlrunbook up` alone reconciles.

Verbs change `<data>/serving/desired.json` and the config file; `observe` asks the running server, never those files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from mlrunbook import statefile
from mlrunbook.adapters import local_evidence
from mlrunbook.domain.errors import Invalid, NotFound, Transient
from mlrunbook.platform import serving_config
from mlrunbook.ports import ServingConfig, ServingState
from mlrunbook.settings import Settings

ANSWERS_WITHIN_S = 3.0  # on the same machine: one that takes longer hangs
_CONFIG_KEYS = {"threshold", *serving_config.SWITCHES}


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
        if replicas not in (0, 1):
            raise Invalid(f"one machine runs 0 or 1 servers of {model}, not {replicas}", field="replicas")
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
        if unknown := set(changes) - _CONFIG_KEYS:
            raise Invalid(
                f"{model}'s config has no {sorted(unknown)[0]!r}; it has {', '.join(sorted(_CONFIG_KEYS))}", field=sorted(unknown)[0]
            )
        threshold = changes.get("threshold", 0.5)
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold < 1:
            raise Invalid(f"{model}'s threshold must be a number over 0 and under 1, not {threshold!r}", field="threshold")
        for key in serving_config.SWITCHES:
            if not isinstance(changes.get(key, True), bool):
                raise Invalid(f"{model}'s {key} must be true or false, not {changes[key]!r}", field=key)
        statefile.patch(self._config.serving_config_file, changes, expected_revision=expected_revision)
        return self.read_config(model)

    def logs(self, model: str, *, tail: int = 500) -> str:
        try:
            with open(self._config.serving_log_file, errors="replace") as lines:
                return "".join(deque(lines, maxlen=tail))
        except FileNotFoundError as error:
            raise NotFound(f"the model server of {model} has written no log at {self._config.serving_log_file}") from error

    def isolate(self, model: str, *, isolated: bool) -> None:
        self._set({"isolated": isolated})

    def preserve(self, model: str) -> dict[str, bytes]:
        return local_evidence.collect(self._config, self._http)

    def _desired(self) -> dict[str, Any]:
        return desired_state(self._config.serving_state_file)

    def _set(self, changes: Mapping[str, Any]) -> None:
        """Write only what differs: the same verb again changes nothing."""
        current = self._desired()
        if any(current[key] != value for key, value in changes.items()):
            statefile.patch(self._config.serving_state_file, changes)
