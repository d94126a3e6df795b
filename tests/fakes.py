"""Parts of the world in memory or in one JSON file, true to the ports. The file survives a killed process and counts what was applied."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from mlrunbook import statefile
from mlrunbook.domain.errors import NotFound, Transient
from mlrunbook.domain.performance import Confusion, ModelMetrics, WindowMetrics
from mlrunbook.domain.policy import Policy
from mlrunbook.ports import Change, Message, Prediction, ServingConfig, ServingState, ServingStatus, WorkOrder
from mlrunbook.wiring import World

MODEL = "predictive_maintenance"
T0 = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)  # the night European clocks change
HEALTHY = Confusion(tp=820, fp=180, fn=180, tn=28_820)
BROKEN = Confusion(tp=50, fp=50, fn=55, tn=2_845)  # F1 .49 against .82, and no threshold mends it


class Clock:
    """A clock that moves when told."""

    def __init__(self, at: datetime = T0) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at

    def advance(self, **span: float) -> None:
        self.at += timedelta(**span)


class FileWorld:
    """Platform and runtime over one JSON file: versions v1.5.0 (good) and v2.0.0 (bad, serving), a config, switches, counters."""

    def __init__(self, path: Path, now: Callable[[], datetime], tap: Callable[[str], None] = lambda _: None) -> None:
        self.path, self._now, self._tap = path, now, tap
        if not path.exists():
            statefile.patch(
                path,
                {
                    "serving": "v2.0.0",
                    "previous": "v1.5.0",
                    "deployed_at": (now() - timedelta(hours=2)).isoformat(),
                    "config": {"threshold": 0.5, "human_approval": False, "auto_work_orders": True, "auto_scheduling": True},
                    "config_revision": 1,
                    "loaded_threshold": 0.5,
                    "route": None,
                    "replicas": 1,
                    "restart_id": None,
                    "bad_versions": {"v2.0.0": "degraded"},
                    "work_orders": [],
                    "keys": [],
                    "applied": {},
                },
            )

    # -- what the test sets and reads

    @property
    def state(self) -> dict[str, Any]:
        return statefile.read(self.path)

    def set(self, **changes: Any) -> None:
        statefile.patch(self.path, changes)

    @property
    def applied(self) -> dict[str, int]:
        """How often each kind of change really changed something, counted here, not by the caller."""
        return dict(self.state["applied"])

    def _apply(self, kind: str, changes: Mapping[str, Any]) -> None:
        self._tap(f"before {kind}")
        counts = self.applied
        counts[kind] = counts.get(kind, 0) + 1
        self.set(**changes, applied=counts)
        self._tap(f"after {kind}")

    # -- ModelPlatform

    def status(self, model: str) -> ServingStatus:
        s = self._known(model)
        up = s["replicas"] > 0
        return ServingStatus(
            model,
            s["serving"],
            s["previous"],
            None,
            up,
            (s["route"] or s["serving"]) if up else None,
            datetime.fromisoformat(s["deployed_at"]),
        )

    def metrics(
        self, model: str, *, since: datetime | None = None, until: datetime | None = None, version: str | None = None
    ) -> ModelMetrics:
        s = self._known(model)
        serving = version or s["route"] or s["serving"]
        bad = s["bad_versions"].get(serving)
        slipped = s["loaded_threshold"] < 0.1
        counts = BROKEN if bad == "degraded" or slipped else HEALTHY
        if bad == "dangerous":
            counts = Confusion(tp=100, fp=2900, fn=0, tn=0)
        flagged = (counts.tp + counts.fp) / counts.n
        window = WindowMetrics(
            since or self._now() - timedelta(hours=1),
            self._now(),
            counts.n,
            counts.n,
            counts,
            flagged,
            20.0,
            0.0,
            0.0,
            (serving,),
            {"high": counts},
            {"L": counts},
        )
        base = WindowMetrics(
            self._now() - timedelta(days=7),
            self._now() - timedelta(hours=2),
            HEALTHY.n,
            HEALTHY.n,
            HEALTHY,
            0.03,
            20.0,
            0.0,
            0.0,
            ("v1.5.0",),
        )
        return ModelMetrics(model, window, base)

    def alerts(self, model: str | None = None) -> Sequence[Mapping[str, Any]]:
        return []

    def prediction_log(
        self, model: str, *, limit: int = 100, since: datetime | None = None, until: datetime | None = None, labelled_only: bool = False
    ) -> Sequence[Prediction]:
        """Scores that say little: for a bad version no threshold gets F1 back."""
        self._known(model)
        numbers = itertools.islice(itertools.count(), min(limit, 600))
        return [
            Prediction(
                i,
                self._now(),
                f"asset_{i}",
                "L",
                {"torque_nm": 40.0 + i % 7},
                (i * 37 % 100) / 100,
                i % 3 == 0,
                self.state["serving"],
                0.5,
                20.0,
                i % 6 == 0,
            )
            for i in numbers
        ]

    def changes(self, model: str, *, since: datetime) -> Sequence[Change]:
        s = self._known(model)
        return [Change("deployment", s["serving"], "release_pipeline", datetime.fromisoformat(s["deployed_at"]), {})]

    def rollback(self, model: str, *, target_version: str, reason: str, rolled_back_by: str, idempotency_key: str) -> ServingStatus:
        s = self._known(model)
        if idempotency_key not in s["keys"] and s["serving"] != target_version:
            self._apply("rollback", {"serving": target_version, "previous": s["serving"], "keys": [*s["keys"], idempotency_key]})
        return self.status(model)

    def work_orders(self, model: str, *, state: str | None = None) -> Sequence[WorkOrder]:
        return [WorkOrder(w["id"], w["asset"], "pending", w["flagged"], T0) for w in self._known(model)["work_orders"]]

    def flag_pending_work_orders(self, model: str, *, reason: str, idempotency_key: str) -> Sequence[WorkOrder]:
        orders = self.state["work_orders"]
        if any(not w["flagged"] for w in orders):
            self._apply("flag", {"work_orders": [{**w, "flagged": True} for w in orders]})
        return self.work_orders(model)

    # -- ServingRuntime

    def observe(self, model: str) -> ServingState:
        s = self.state
        if not s["replicas"]:
            return ServingState(0, 0, None, None, None, None)
        loaded = ServingConfig(s["config_revision"], s["loaded_threshold"], **{k: v for k, v in s["config"].items() if k != "threshold"})
        return ServingState(s["replicas"], s["replicas"], s["route"], s["restart_id"], s["route"] or s["serving"], loaded)

    def scale(self, model: str, *, replicas: int) -> None:
        if self.state["replicas"] != replicas:
            self._apply("scale", {"replicas": replicas})

    def route(self, model: str, *, version: str | None) -> None:
        if self.state["route"] != version:
            self._apply("route", {"route": version})

    def read_config(self, model: str) -> ServingConfig:
        s = self.state
        return ServingConfig(s["config_revision"], **s["config"])

    def write_config(self, model: str, changes: Mapping[str, Any], *, expected_revision: int) -> ServingConfig:
        s = self.state
        if s["config_revision"] != expected_revision:
            raise Transient("the config moved meanwhile")
        kind = "config:" + ",".join(f"{k}={v}" for k, v in sorted(changes.items()))
        self._apply(kind, {"config": {**s["config"], **changes}, "config_revision": expected_revision + 1})
        return self.read_config(model)

    def restart(self, model: str, *, restart_id: str) -> None:
        s = self.state
        if s["restart_id"] != restart_id:
            self._apply("restart", {"restart_id": restart_id, "loaded_threshold": s["config"]["threshold"]})

    def logs(self, model: str, *, tail: int = 500) -> str:
        return "INFO started\n"

    def _known(self, model: str) -> dict[str, Any]:
        if model != MODEL:
            raise NotFound(f"there is no model {model!r}")
        return self.state


@dataclass
class LedgerNotifier:
    """Keeps what was sent. `fail` lists channels that are dead."""

    sent: list[Message] = field(default_factory=list)
    fail: set[str] = field(default_factory=set)

    def send(self, message: Message) -> None:
        if message.channel in self.fail:
            raise Transient(f"channel {message.channel} does not answer")
        self.sent.append(message)

    def pages(self) -> list[Message]:
        return [m for m in self.sent if m.page]


@dataclass
class LedgerOrchestrator:
    """Prefect as the dispatcher sees it."""

    up: bool = True
    started: dict[str, dict[str, Any]] = field(default_factory=dict)
    resumed: list[str] = field(default_factory=list)
    suspended: set[str] = field(default_factory=set)

    def start(self, deployment: str, parameters: Mapping[str, Any], *, idempotency_key: str, name: str | None = None) -> str:
        self._check()
        self.started.setdefault(idempotency_key, dict(parameters))
        return f"run-{idempotency_key}"

    def resume(self, run_id: str, run_input: Mapping[str, Any]) -> None:
        self._check()
        if run_id not in self.suspended:
            raise NotFound(f"no run {run_id}")
        self.suspended.discard(run_id)
        self.resumed.append(run_id)

    def is_suspended(self, run_id: str) -> bool:
        self._check()
        return run_id in self.suspended

    def _check(self) -> None:
        if not self.up:
            raise Transient("Prefect does not answer")


def world_of(
    engine: Engine,
    file_world: FileWorld,
    clock: Callable[[], datetime],
    *,
    policy: Policy | None = None,
    notifier: LedgerNotifier | None = None,
    orchestrator: LedgerOrchestrator | None = None,
    lease_s: float = 30.0,
) -> World:
    return World(
        engine=engine,
        platform=file_world,
        runtime=file_world,
        notifier=notifier or LedgerNotifier(),
        orchestrator=orchestrator or LedgerOrchestrator(),
        policy=policy or Policy(),
        lease_s=lease_s,
        now=clock,
        settle_s=0.3,
    )
