"""Parts of the world in memory or in one JSON file, true to the ports. The file survives a killed process and counts what was applied."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from mlrunbook.base import db, json_file
from mlrunbook.base.clocks import elapsed
from mlrunbook.domain.actions import Action, check_own
from mlrunbook.domain.elapsed import Elapsed
from mlrunbook.domain.errors import NotFound, Refused, Transient, Unknown
from mlrunbook.domain.evaluation.history import DayFigures
from mlrunbook.domain.evaluation.outcome_blocks import OutcomeBlocks
from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics, WindowMetrics
from mlrunbook.domain.observed import (
    Change,
    Instance,
    Prediction,
    Resources,
    Revision,
    ServingConfig,
    ServingState,
    ServingStatus,
    WorkOrder,
)
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.ports import Message
from mlrunbook.response.world import World
from tests import fake_features, fake_models, fake_serving
from tests.fake_features import FileFeatures, FileSchedules
from tests.fake_models import FileRegistry, FileTrainer, scored

MODEL = "predictive_maintenance"
T0 = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)  # the night European clocks change
HEALTHY = Confusion(tp=820, fp=180, fn=180, tn=28_820)
BROKEN = Confusion(tp=50, fp=50, fn=55, tn=2_845)  # F1 .49 against .82, and no threshold mends it
WORSE = Confusion(tp=700, fp=300, fn=300, tn=28_700)  # F1 .70: 15 % lower, medium
SLIPPED = Confusion(tp=950, fp=3_050, fn=50, tn=25_950)  # nearly every failure caught, three of four alarms false
ALL_FLAGGED = Confusion(tp=100, fp=2_900, fn=0, tn=0)
COUNTS = {"degraded": BROKEN, "worse": WORSE, "slipped": SLIPPED, "dangerous": ALL_FLAGGED, None: HEALTHY}
SLIPPED_BELOW = 0.1  # a threshold under this flags nearly everything
BUSY_FOR_A_RUN = ("busy",) * 9  # a fault that outlasts a task's eight retries; the next run finds it gone
WINDOW = timedelta(hours=1)
ROWS, PAGE = 300, 10_000  # of the prediction log


STORE_TABLES = frozenset(
    {
        "mode_changes",
        "incidents",
        "row_events",
        "chain_heads",
        "alerts",
        "timeline",
        "records",
        "plans",
        "approvals",
        "actions",
        "outbox",
        "leases",
        "evidence",
        "action_items",
        "rule_states",
        "baseline_pins",
        "changes",
        "audits",
        "drills",
        "clocks",
        "lease_looks",
        "registry_moves",
        "registry_versions",
    }
)


class Clock:
    """A clock that moves when told."""

    def __init__(self, at: datetime = T0, *, boot: str = "this boot") -> None:
        self.at, self.boot, self._origin, self._slept_s = at, boot, T0, 0.0

    def __call__(self) -> datetime:
        return self.at

    def elapsed(self) -> Elapsed:
        total_s = (self.at - self._origin).total_seconds()
        return Elapsed(self.boot, total_s, total_s - self._slept_s)

    def jump(self, **span: float) -> None:
        """Somebody sets it; no time passes."""
        self.at += timedelta(**span)
        self._origin += timedelta(**span)

    def sleep(self, **span: float) -> None:
        """The machine sleeps."""
        self.advance(**span)
        self._slept_s += timedelta(**span).total_seconds()

    def reboot(self, boot: str, **span: float) -> None:
        """The machine is off for so long, and counts from zero again."""
        self.advance(**span)
        self.boot, self._origin, self._slept_s = boot, self.at, 0.0

    def advance(self, **span: float) -> None:
        """So much time passes; none passes backwards, there somebody sets the clock."""
        if timedelta(**span) < timedelta(0):
            self.jump(**span)
        else:
            self.at += timedelta(**span)


class FileWorld(FileRegistry, FileSchedules):
    """Platform and runtime over one JSON file: versions v1.5.0 (good) and v2.0.0 (bad, serving), a config, switches, counters."""

    def __init__(self, path: Path, now: Callable[[], datetime], tap: Callable[[str], None] = lambda _: None, model: str = MODEL) -> None:
        self.path, self._now, self._tap, self.model = path, now, tap, model
        self.registered = [model]
        self.down = False  # nothing answers
        self.down_after_reads: int | None = None  # goes down after so many answers
        self.faults: dict[str, list[str]] = {}  # kind of change -> what befalls its next attempts, see `_apply`
        if not path.exists():
            json_file.patch(
                path,
                {
                    "serving": "v2.0.0",
                    "previous": "v1.5.0",
                    "deployed_at": (now() - timedelta(hours=2)).isoformat(),
                    "released_by": "deployment",  # or "rollback"
                    "released_before": [],
                    "config": {"threshold": 0.5, "human_approval": False, "auto_work_orders": True, "auto_scheduling": True},
                    "config_revision": 1,
                    "loaded_threshold": 0.5,
                    "route": None,
                    "replicas": 1,
                    "restart_id": None,
                    "isolated": False,
                    "bad_versions": {"v2.0.0": "degraded"},
                    "config_changes": [],
                    "slipped_until": None,
                    "slipped_counts": "slipped",
                    "raised_counts": None,  # what is counted at a threshold over 0.5; None: as at 0.5
                    "labelled": True,  # False: next to no outcome of the newest predictions is known yet
                    "predictions": None,  # in the window; None: as many as have an outcome
                    "label_delay_s": None,
                    "work_orders": [],
                    "keys": [],
                    "applied": {},
                    "asset_types": ["L"],  # of the logged predictions
                    "features": fake_features.START,
                    **fake_models.START,
                    **fake_serving.START,
                },
            )

    # -- what the test sets and reads

    @property
    def state(self) -> dict[str, Any]:
        return json_file.read(self.path)

    def set(self, **changes: Any) -> None:
        json_file.patch(self.path, changes)

    @property
    def applied(self) -> dict[str, int]:
        """How often each kind of change really changed something, counted here, not by the caller."""
        return dict(self.state["applied"])

    def slip(self, to: float = 0.002) -> None:
        """Somebody set the threshold far too low and restarted; the release is old and sound."""
        at = self._now() - timedelta(hours=2)
        moved = {"ref": "model-config", "author": "an engineer", "at": at.isoformat(), "from": {"threshold": 0.5}, "to": {"threshold": to}}
        self.set(
            serving="v1.5.0",
            previous="v1.4.0",
            deployed_at=(at - timedelta(days=30)).isoformat(),
            config=self.state["config"] | {"threshold": to},
            loaded_threshold=to,
            config_changes=[moved],
        )

    def _apply(self, kind: str, changes: Mapping[str, Any]) -> None:
        """Change and count. A fault "lost" times out before the change, "late" after it; "dies" then answers no more."""
        waiting = self.faults.get(kind) or [""]
        fault = waiting.pop(0)
        if fault == "busy":
            raise Transient(f"{kind}: busy")
        if fault == "refused":
            raise Refused(f"{kind}: forbidden")
        if fault == "lost":
            raise Unknown(f"{kind}: timed out")
        self._tap(f"before {kind}")
        counts = self.applied
        counts[kind] = counts.get(kind, 0) + 1
        self.set(**changes, applied=counts)
        self._tap(f"after {kind}")
        self.down = fault == "dies"
        if fault in ("late", "dies"):
            raise Unknown(f"{kind}: timed out")

    def _answer(self) -> dict[str, Any]:
        if self.down_after_reads is not None:
            self.down, self.down_after_reads = self.down_after_reads <= 0, self.down_after_reads - 1
        if self.down:
            raise Transient("nothing answers")
        return self.state

    # -- ModelPlatform

    def models(self) -> Sequence[str]:
        self._answer()
        return self.registered

    def status(self, model: str) -> ServingStatus:
        s = self._known(model)
        up = s["replicas"] > 0 and not s["hung"]
        return ServingStatus(
            model,
            s["serving"],
            s["previous"],
            s["staging"],
            up,
            fake_serving.serves(s) if up else None,
            datetime.fromisoformat(s["deployed_at"]),
            not_loaded=fake_serving.not_loaded(s) if up else None,
            unloadable_route=fake_serving.unloadable_route(s) if up else None,
        )

    def metrics(
        self, model: str, *, since: datetime | None = None, until: datetime | None = None, version: str | None = None
    ) -> ModelMetrics:
        """A window that begins before a slipped threshold was mended still shows it."""
        s = self._known(model)
        current = fake_serving.serves(s)
        serving = version or current
        begin = since or self._now() - WINDOW
        failed = fake_serving.errors(s, begin)
        in_trouble = "degraded" if fake_features.trouble(s["features"]) and begin >= self._now() - 2 * WINDOW else None
        counts = COUNTS[s["bad_versions"].get(serving) or in_trouble]
        mended_late = s["slipped_until"] is not None and begin < datetime.fromisoformat(s["slipped_until"])
        if serving == current and (s["loaded_threshold"] < SLIPPED_BELOW or mended_late):
            counts = COUNTS[s["slipped_counts"]]
        if serving == current and s["raised_counts"] and s["loaded_threshold"] > 0.5:
            counts = COUNTS[s["raised_counts"]]
        flagged, predictions = (counts.tp + counts.fp) / counts.n, s["predictions"] if s["predictions"] is not None else counts.n
        if not s["labelled"] and since is not None and not version:
            counts = Confusion(tp=0, fp=0, fn=0, tn=min(10, predictions))
        window = WindowMetrics(
            begin,
            until or self._now(),
            predictions,
            counts.n,
            counts,
            flagged,
            s["latency_ms"],
            sum(failed.values()) / fake_serving.ASKED,
            0.0,
            (serving,),
            {"high": counts},
            {"L": counts} | {name: Confusion(**cells) for name, cells in s.get("types", {}).items()},
            errors=failed,
            label_delay_s=s["label_delay_s"],
        )
        past = Confusion(**s["baseline"]) if "baseline" in s else HEALTHY
        base = WindowMetrics(
            self._now() - timedelta(days=7),
            self._now() - timedelta(hours=2),
            past.n,
            past.n,
            past,
            0.03,
            20.0,
            0.0,
            0.0,
            ("v1.5.0",),
            by_asset_type={"L": past} | {name: Confusion(**cells) for name, cells in s.get("types_before", {}).items()},
        )
        return ModelMetrics(model, window, base)

    def history(self, model: str, *, days: int, until: datetime | None = None) -> Sequence[DayFigures]:
        """Every day as good as the baseline, the last one as the model is now."""
        self._known(model)
        last, now = (until or self._now()).date(), self.metrics(model).current
        counts = [*([HEALTHY] * (days - 1)), now.confusion]
        return [
            DayFigures(last - timedelta(days=days - 1 - i), c.n, c, (c.tp + c.fp) / c.n, 20.0, 0.0, 0.0, now.versions)
            for i, c in enumerate(counts)
        ]

    def outcome_blocks(self, model: str, *, since: datetime, until: datetime, block_s: float, version: str | None = None) -> OutcomeBlocks:
        raise NotFound("this platform does not count outcomes by block")

    def alerts(self, model: str | None = None) -> Sequence[Mapping[str, Any]]:
        return []

    def prediction_log(
        self, model: str, *, limit: int = 100, since: datetime | None = None, until: datetime | None = None, labelled_only: bool = False
    ) -> Sequence[Prediction]:
        """Labelled rows, see `fake_models.scored`; with a staged version, its scores too."""
        s = self._known(model)
        serving, staged, types = fake_serving.serves(s), s["staging"], s["asset_types"]
        sound = serving not in s["bad_versions"] and not fake_features.trouble(s["features"])
        now, threshold, empty = self._now(), s["loaded_threshold"], s["features"]["empty"]
        shadow_sound = staged not in s["bad_versions"]
        rows = []
        for i in range(min(limit, ROWS if limit < PAGE else 4 * ROWS)):  # a whole page is asked for to train on
            score, failed = scored(i, sound=sound)
            rows.append(
                Prediction(
                    id=i,
                    at=now - timedelta(seconds=i),
                    asset_id=f"asset_{i}",
                    asset_type=types[i % len(types)],
                    features={f: None if f in empty else 40.0 + i % 7 for f in ("torque_nm", "tool_wear_min")},
                    score=score,
                    label=score >= threshold,
                    version=serving,
                    threshold=threshold,
                    latency_ms=20.0,
                    outcome=failed,
                    shadow_version=staged,
                    shadow_score=scored(i, sound=shadow_sound)[0] if staged else None,
                )
            )
        return rows

    def changes(self, model: str, *, since: datetime) -> Sequence[Change]:
        s = self._known(model)
        released = [{"kind": s["released_by"], "ref": s["serving"], "at": s["deployed_at"]}, *s["released_before"]]
        found = [Change(r["kind"], r["ref"], "release_pipeline", datetime.fromisoformat(r["at"]), {}) for r in released]
        for c in s["config_changes"]:
            found.append(Change("config", c["ref"], c["author"], datetime.fromisoformat(c["at"]), {"from": c["from"], "to": c["to"]}))
        return sorted((c for c in found if c.at >= since), key=lambda c: c.at, reverse=True)

    def rollback(self, model: str, *, target_version: str, reason: str, rolled_back_by: str, idempotency_key: str) -> ServingStatus:
        s = self._known(model)
        if target_version not in s["versions"]:
            raise NotFound(f"{model} has no version {target_version}")
        if idempotency_key not in s["keys"] and s["serving"] != target_version:
            self._apply("rollback", {**self._released(s, target_version, "rollback"), "keys": [*s["keys"], idempotency_key]})
        return self.status(model)

    def work_orders(self, model: str, *, state: str | None = None) -> Sequence[WorkOrder]:
        orders = self._known(model)["work_orders"]
        return [WorkOrder(w["id"], w["asset"], "pending", w["flagged"], T0) for w in orders if state in (None, "pending")]

    def flag_pending_work_orders(self, model: str, *, reason: str, idempotency_key: str) -> Sequence[WorkOrder]:
        orders = self._known(model)["work_orders"]
        if any(not w["flagged"] for w in orders):
            self._apply("flag", {"work_orders": [{**w, "flagged": True} for w in orders]})
        return self.work_orders(model)

    # -- ServingRuntime

    def observe(self, model: str) -> ServingState:
        s = self._known(model)
        if not s["replicas"]:
            return ServingState(0, 0, s["route"], s["restart_id"], None, None, s["isolated"])
        if s["hung"]:
            raise Transient("the model server gives no answer")
        switches = {k: v for k, v in s["config"].items() if k != "threshold"}
        loaded = ServingConfig(str(s["config_revision"]), s["loaded_threshold"], **switches)
        caveats = tuple(s.get("caveats", ())) if s["isolated"] else ()
        serves = fake_serving.serves(s)
        ready = 0 if s.get("unready") else s["replicas"]
        return ServingState(s["replicas"], ready, s["route"], s["restart_id"], serves, loaded, s["isolated"], caveats)

    def scale(self, model: str, *, replicas: int) -> None:
        """A server that starts reads its config."""
        if self._known(model)["replicas"] != replicas:
            self._apply(f"scale:{replicas}", {"replicas": replicas} | (self._loaded() if replicas else {}))

    def route(self, model: str, *, version: str | None) -> None:
        if self._known(model)["route"] != version:
            self._apply(f"route:{version}", {"route": version})

    def read_config(self, model: str) -> ServingConfig:
        s = self._known(model)
        return ServingConfig(str(s["config_revision"]), **s["config"])

    def write_config(self, model: str, changes: Mapping[str, Any], *, expected_revision: str) -> ServingConfig:
        s = self._known(model)
        if str(s["config_revision"]) != expected_revision:
            raise Transient("the config moved meanwhile")
        kind = "config:" + ",".join(f"{k}={v}" for k, v in sorted(changes.items()))
        before = {k: s["config"][k] for k in changes}
        made = {"ref": "model-config", "author": "mlrunbook", "at": self._now().isoformat(), "from": before, "to": dict(changes)}
        written = {"config": {**s["config"], **changes}, "config_revision": s["config_revision"] + 1}
        self._apply(kind, written | {"config_changes": [*s["config_changes"], made]})
        return self.read_config(model)

    def restart(self, model: str, *, restart_id: str) -> None:
        if self._known(model)["restart_id"] != restart_id:
            self._apply("restart", {"restart_id": restart_id} | self._loaded() | fake_serving.restarted(self.state))

    def _loaded(self) -> dict[str, Any]:
        s = self.state
        threshold = s["config"]["threshold"]
        mended = s["loaded_threshold"] < SLIPPED_BELOW <= threshold
        return {"loaded_threshold": threshold} | ({"slipped_until": self._now().isoformat()} if mended else {})

    def instances(self, model: str) -> Sequence[Instance]:
        s = self._known(model)
        return [Instance("model-server", not s["hung"], 0, "it does not answer" if s["hung"] else None)] * s["replicas"]

    def resources(self, model: str) -> Resources:
        self._known(model)
        return Resources(0.2, 0.3)

    def revisions(self, model: str) -> Sequence[Revision]:
        self._known(model)
        return []

    def undo_rollout(self, model: str, *, revision: int) -> None:
        self._known(model)
        raise Refused("there is no rollout history")

    def dry_run(self, model: str, actions: Sequence[Action]) -> Sequence[str]:
        """`refuses`: action kinds that a dry run would refuse."""
        self._known(model)
        check_own(model, actions)
        for action in actions:
            if action.kind in self.state.get("refuses", ()):
                raise Refused(f"the server refuses to {action.summary}")
        return []

    def logs(self, model: str, *, tail: int = 500, since: datetime | None = None) -> str:
        """`log`: (ISO time, line)."""
        written = self._known(model).get("log", [(T0.replace(year=2025).isoformat(), "INFO started")])
        lines = [line for at, line in written if since is None or datetime.fromisoformat(at) >= since]
        return "".join(f"{line}\n" for line in lines[-tail:])

    def isolate(self, model: str, *, isolated: bool) -> None:
        if self._known(model)["isolated"] != isolated:
            self._apply(f"isolate:{isolated}", {"isolated": isolated})

    def preserve(self, model: str) -> Mapping[str, bytes]:
        if model != self.model:
            return {"serving.missing": f"this machine serves {self.model}, not {model}".encode()}
        if self.down:
            return {"logs/model-server.log.missing": b"nothing answers"}
        return {"logs/model-server.log": b"INFO started\n", "serving/health.json": json.dumps({"version": self.state["serving"]}).encode()}

    def _known(self, model: str) -> dict[str, Any]:
        if model != self.model:
            raise NotFound(f"there is no model {model!r}")
        return self._answer()


@dataclass
class LedgerNotifier:
    """Keeps what was sent. `fail` lists channels that are dead."""

    sent: list[Message] = field(default_factory=list)
    fail: set[str] = field(default_factory=set)
    settled: list[tuple[str, str, str]] = field(default_factory=list)

    def send(self, message: Message) -> None:
        if message.channel in self.fail:
            raise Transient(f"channel {message.channel} does not answer")
        self.sent.append(message)

    def settle(self, message: Message, action: str) -> bool:
        if message.channel in self.fail:
            raise Transient(f"channel {message.channel} does not answer")
        self.settled.append((message.incident_id, message.channel, action))
        return False

    def has_address(self, channel: str) -> bool:
        return True

    def pages(self) -> list[Message]:
        return [m for m in self.sent if m.page]


@dataclass
class LedgerOrchestrator:
    """Prefect as the dispatcher sees it."""

    up: bool = True
    started: dict[str, dict[str, Any]] = field(default_factory=dict)
    resumed: list[str] = field(default_factory=list)
    suspended: set[str] = field(default_factory=set)
    queued: set[str] = field(default_factory=set)
    claimed: set[str] = field(default_factory=set)  # of the queued: a worker is about to begin them
    urgent: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)

    def start(
        self, deployment: str, parameters: Mapping[str, Any], *, idempotency_key: str, name: str | None = None, urgent: bool = False
    ) -> str:
        self._check()
        if idempotency_key not in self.started and urgent:
            self.urgent.add(f"run-{idempotency_key}")
        self.started.setdefault(idempotency_key, dict(parameters))
        return f"run-{idempotency_key}"

    def resume(self, run_id: str, run_input: Mapping[str, Any]) -> None:
        self._check()
        if run_id not in self.suspended:
            raise NotFound(f"no run {run_id}")
        self.suspended.discard(run_id)
        self.resumed.append(run_id)

    def is_queued(self, run_id: str) -> bool:
        self._check()
        return run_id in self.queued

    def is_held_up(self, run_id: str) -> bool:
        self._check()
        return run_id in self.queued - self.claimed - self.urgent

    def cancel(self, run_id: str, why: str) -> None:
        self._check()
        self.queued.discard(run_id)
        self.suspended.discard(run_id)
        self.cancelled.add(run_id)

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
        features=FileFeatures(file_world),
        trainer=FileTrainer(file_world),
        notifier=notifier or LedgerNotifier(),
        orchestrator=orchestrator or LedgerOrchestrator(),
        policy=policy or Policy(),
        lease_s=lease_s,
        now=clock,
        elapsed=clock.elapsed if isinstance(clock, Clock) else elapsed,
        settle_s=0.06,
        patience_s=0.0,
        sleep=lambda _: None,  # the clock is the test's: nobody waits
        draw_drift_page=lambda *_: b"<html>the inputs before and during the incident</html>",  # the real one takes seconds of CPU
    )


def empty_store(engine: Engine) -> None:
    """Every test its own incidents: nothing of an earlier one waits in the outbox or counts against a guardrail."""
    with engine.begin() as conn:
        for table in reversed(db.metadata.sorted_tables):
            if table.name in STORE_TABLES:
                conn.execute(table.delete())
