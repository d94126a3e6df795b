"""How each action is read, recognised as done, and applied. Only `mlrunbook.response.execution.execute` calls this."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mlrunbook.base import progress
from mlrunbook.domain.actions import (
    Configure,
    FlagWorkOrders,
    Isolate,
    Materialize,
    Promote,
    Register,
    Restart,
    ResumeMaterialization,
    RollBack,
    RouteTraffic,
    Scale,
    Stage,
    UndoRollout,
)
from mlrunbook.domain.errors import NotFound, Refused, Transient
from mlrunbook.domain.investigation.feature_store import CLOCK_SKEW, PASSING
from mlrunbook.domain.observed import ViewState
from mlrunbook.domain.resolution.existing import check_views
from mlrunbook.ports import FeatureStore
from mlrunbook.response.world import World

State = Mapping[str, Any]
COMPARED = 5_000  # entities of a feature view that are read back: all of a fleet this large, half a second


@dataclass(frozen=True)
class ActionHandler:
    """`read` returns the state in the words the journal keeps; `repeatable`: applying twice is the same as once. `settles`: how many times
    `World.settle_s` it may take to show. `unseen`: what is journaled as the state before where nothing answers, for what must be done all
    the same; None: then it waits until it can be read. `half_way`: from the state before to the one now, whether it is this change that was
    cut off in the middle, and applying it again completes it."""

    read: Callable[[World, Any], State]
    is_satisfied: Callable[[Any, State], bool]
    apply: Callable[[World, Any, str], object]
    repeatable: bool
    settles: float = 1.0
    failed: Callable[[State], str | None] = lambda state: state.get("failed")  # why it will not come true, where that is known
    unseen: Callable[[Any], State | None] = lambda action: None
    half_way: Callable[[Any, State, State], bool] = lambda action, before, now: False


def _read_serving_version(world: World, action: RollBack | Promote) -> State:
    """A registry in which nothing serves (the serving version was deleted, say) is one that a rollback is for."""
    try:
        status = world.platform.status(action.model)
    except NotFound:
        if not world.platform.versions(action.model):
            raise
        return {"serving_version": None, "server_version": None}
    return {"serving_version": status.serving_version, "server_version": status.server_version if status.server_healthy else None}


def _serves(version: str, state: State) -> bool:
    """The registry says so, and the server (when one runs) serves it. A route override shows as the server's version too."""
    return state.get("serving_version") == version and state.get("server_version") in (None, version)


def _is_named_alone(version: str, before: State, now: State) -> bool:
    """The registry names it, and the servers were not told to follow yet."""
    server = now.get("server_version")
    return bool(now.get("serving_version") == version and server not in (None, version) and server == before.get("serving_version"))


def _read_route(world: World, action: RouteTraffic) -> State:
    seen = world.runtime.observe(action.model)
    if seen.replicas and not seen.ready_replicas:
        raise Transient(f"the server of {action.model} does not answer: where its traffic goes cannot be read now")
    return {"version": seen.route_version, "serves": seen.version, "replicas": seen.replicas}


def _routed(action: RouteTraffic, state: State) -> bool:
    """Where no server runs, the route is in place as soon as the next one will follow it."""
    if "version" not in state or state["version"] != action.version:
        return False
    return action.version is None or state.get("serves") == action.version or state.get("replicas") == 0


def _read_scale(world: World, action: Scale) -> State:
    seen = world.runtime.observe(action.model)
    state = {"replicas": seen.replicas, "ready_replicas": seen.ready_replicas}
    return state | ({"autoscaler": seen.autoscaler} if seen.autoscaler else {})


def _scaled(action: Scale, state: State) -> bool:
    """Nothing is stopped while an autoscaler may start it again; and where one is at work, it says how many servers there are."""
    replicas, ready, autoscaler = state.get("replicas"), state.get("ready_replicas"), state.get("autoscaler")
    if replicas is None or ready is None:
        return False
    enough = action.replicas if action.min_ready is None else action.min_ready
    if action.replicas and autoscaler == "active":
        return bool(replicas > 0 and ready >= min(enough, 1))
    if autoscaler == ("suspended" if action.replicas else "active"):
        return False
    return bool(replicas == action.replicas and enough <= ready <= action.replicas)


def _read_config(world: World, action: Configure) -> State:
    """The stored values, and for the switches also what the running server has loaded: those act at once."""
    stored = world.runtime.read_config(action.model).as_dict()
    running = world.runtime.observe(action.model).config
    live = running.as_dict() if running else {}
    keys = action.settings
    return {k: stored[k] for k in keys if k in stored} | {f"running_{k}": live[k] for k in keys if k != "threshold" and k in live}


def _configured(action: Configure, state: State) -> bool:
    return all(state.get(k) == v and state.get(f"running_{k}", v) == v for k, v in action.settings.items())


def _write_config(world: World, action: Configure, _id: str) -> None:
    revision = world.runtime.read_config(action.model).revision
    world.runtime.write_config(action.model, dict(action.settings), expected_revision=revision)


def _read_restart(world: World, action: Restart) -> State:
    """A server that gives no answer is one that a restart is for."""
    try:
        seen = world.runtime.observe(action.model)
    except Transient:
        return {"restart_id": None, "ready": False}
    state = {"restart_id": seen.restart_id, "ready": seen.ready_replicas > 0}
    failed = seen.rollout and seen.rollout.state == "failed" and seen.rollout.restart_id == action.restart_id
    return state | ({"failed": seen.rollout.sentence} if failed and seen.rollout else {})


def _read_isolation(world: World, action: Isolate) -> State:
    """A server that gives no answer can be isolated all the same."""
    try:
        seen = world.runtime.observe(action.model)
    except Transient:
        return {"isolated": None}
    return {"isolated": seen.isolated} | ({"caveats": list(seen.caveats)} if seen.caveats else {})


def _keeps_evidence(world: World, model: str) -> None:
    """What would end the process of an isolated server is Refused: its memory is evidence."""
    if _read_isolation(world, Isolate(model, True))["isolated"]:
        raise Refused(f"{model} is isolated and its process is evidence: a person lifts the isolation first")


def _scale(world: World, action: Scale, _id: str) -> None:
    _keeps_evidence(world, action.model)
    world.runtime.scale(action.model, replicas=action.replicas)


def _restart(world: World, action: Restart, _id: str) -> None:
    _keeps_evidence(world, action.model)
    world.runtime.restart(action.model, restart_id=action.restart_id)


def _read_revision(world: World, action: UndoRollout) -> State:
    """The revision in place, and whether its rollout is done. NotFound when the history no longer has the target."""
    revisions = world.runtime.revisions(action.model)
    if not any(r.has(action.revision) for r in revisions):
        known = ", ".join(str(r.number) for r in revisions) or "none"
        raise NotFound(f"{action.model} has no revision {action.revision} in its rollout history: {known}")
    current = next((r for r in revisions if r.current), None)
    seen = world.runtime.observe(action.model)
    return {
        "revision": current.number if current else None,
        "in_place": current is not None and current.has(action.revision),
        "ready": seen.replicas == seen.ready_replicas,
    }


def _undo_rollout(world: World, action: UndoRollout, _id: str) -> None:
    _keeps_evidence(world, action.model)
    world.runtime.undo_rollout(action.model, revision=action.revision)


def _read_work_orders(world: World, action: FlagWorkOrders) -> State:
    pending = world.platform.work_orders(action.model, state="pending")
    return {"pending_unflagged": sum(not w.flagged_for_review for w in pending)}


def _feature_store(world: World) -> FeatureStore:
    if world.features is None:
        raise Refused("no feature store is configured: set MLRUNBOOK_FEATURE_REPO to the folder of feature_store.yaml")
    return world.features


def _own_views(world: World, action: Materialize | ResumeMaterialization) -> None:
    """Refused for the views of another model: nothing of them is read back, so nothing is applied either."""
    check_views(action.model, action.views, world.policy.feature_views_of(action.model))


def _read_features(world: World, action: Materialize) -> State:
    """By view, what is left to load of the rows that the source had when the plan was made; retrieval by feature service must work."""
    _own_views(world, action)
    seen = _feature_store(world).inspect(entities=COMPARED, until=_moment(action.until) or _moment(action.as_of))
    for problem in seen.problems:
        if problem.fault in PASSING:
            raise Transient(problem.sentence)
        if problem.view in (None, *action.views):
            raise Refused(problem.sentence)
    if seen.read_ok is False:
        raise Transient("a feature read by service and entity fails: what is online cannot be compared with the source now")
    limit, ahead = world.policy.features.null_rate, world.now() + CLOCK_SKEW
    return {view.name: _left(view, limit, ahead) for view in seen.views if view.name in action.views}


def _left(view: ViewState, null_rate: float, ahead: datetime) -> dict[str, Any]:
    source = view.null_source or {}
    return {
        "behind": view.behind,
        "missing": view.missing,
        "emptier_than_source": sorted(f for f, share in (view.null_online or {}).items() if share > source.get(f, 0.0) + null_rate),
        "ends_in_the_future": view.job_end_at is not None and view.job_end_at > ahead,
    }


def _materialized(action: Materialize, state: State) -> bool:
    return all(name in state and not any(state[name].values()) for name in action.views)


def _materialize(world: World, action: Materialize, _id: str) -> None:
    _own_views(world, action)
    until = _moment(action.until) or world.now()
    _feature_store(world).materialize(action.views, since=_moment(action.since), until=until, progress=progress.report)


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _read_schedules(world: World, action: ResumeMaterialization) -> State:
    _own_views(world, action)
    running = {s.view for s in world.platform.feature_schedules() if not s.suspended}
    return {"suspended": sorted(set(action.views) - running)}


def _resume(world: World, action: ResumeMaterialization, key: str) -> None:
    _own_views(world, action)
    world.platform.resume_feature_schedules(action.views, resumed_by="mlrunbook", idempotency_key=key)


def _read_registered(world: World, action: Register) -> State:
    return {"registered": any(v.version == action.version for v in world.platform.versions(action.model))}


A_START = 4.0  # a server that starts imports its libraries and loads its model, on a busy machine for a minute

HANDLERS: dict[str, ActionHandler] = {
    RollBack.kind: ActionHandler(
        read=_read_serving_version,
        is_satisfied=lambda a, s: _serves(a.target_version, s),
        apply=lambda world, a, key: world.platform.rollback(
            a.model, target_version=a.target_version, reason=a.reason, rolled_back_by="mlrunbook", idempotency_key=key
        ),
        repeatable=False,
        settles=A_START,
        half_way=lambda a, before, now: _is_named_alone(a.target_version, before, now),
    ),
    RouteTraffic.kind: ActionHandler(
        read=_read_route, is_satisfied=_routed, apply=lambda world, a, _: world.runtime.route(a.model, version=a.version), repeatable=True
    ),
    Scale.kind: ActionHandler(
        read=_read_scale,
        is_satisfied=_scaled,
        apply=_scale,
        repeatable=True,
        settles=A_START,
        # A server that hangs is one to stop; how many ran is then not known.
        unseen=lambda action: None if action.replicas else {"replicas": None, "ready_replicas": None},
    ),
    Configure.kind: ActionHandler(read=_read_config, is_satisfied=_configured, apply=_write_config, repeatable=False),
    Restart.kind: ActionHandler(
        read=_read_restart,
        is_satisfied=lambda a, s: s.get("restart_id") == a.restart_id and bool(s.get("ready")),
        apply=_restart,
        repeatable=True,
        settles=A_START,
    ),
    Isolate.kind: ActionHandler(
        read=_read_isolation,
        is_satisfied=lambda a, s: s.get("isolated") is a.isolated,
        apply=lambda world, a, _: world.runtime.isolate(a.model, isolated=a.isolated),
        repeatable=True,
    ),
    UndoRollout.kind: ActionHandler(
        read=_read_revision,
        is_satisfied=lambda a, s: bool(s.get("in_place")) and bool(s.get("ready")),
        apply=_undo_rollout,
        repeatable=True,
        settles=A_START,
    ),
    FlagWorkOrders.kind: ActionHandler(
        read=_read_work_orders,
        is_satisfied=lambda a, s: s.get("pending_unflagged") == 0,
        apply=lambda world, a, key: world.platform.flag_pending_work_orders(a.model, reason=a.reason, idempotency_key=key),
        repeatable=True,
    ),
    Materialize.kind: ActionHandler(read=_read_features, is_satisfied=_materialized, apply=_materialize, repeatable=True),
    ResumeMaterialization.kind: ActionHandler(
        read=_read_schedules,
        is_satisfied=lambda a, s: s.get("suspended") == [],
        apply=_resume,
        repeatable=True,
    ),
    Register.kind: ActionHandler(
        read=_read_registered,
        is_satisfied=lambda a, s: bool(s.get("registered")),
        apply=lambda world, a, key: world.platform.register(a.model, version=a.version, registered_by="mlrunbook", idempotency_key=key),
        repeatable=True,
    ),
    Stage.kind: ActionHandler(
        read=lambda world, a: {"staging_version": world.platform.status(a.model).staging_version},
        is_satisfied=lambda a, s: "staging_version" in s and s["staging_version"] == a.version,
        apply=lambda world, a, key: world.platform.stage(a.model, version=a.version, staged_by="mlrunbook", idempotency_key=key),
        repeatable=False,
    ),
    Promote.kind: ActionHandler(
        read=_read_serving_version,
        is_satisfied=lambda a, s: _serves(a.version, s),
        apply=lambda world, a, key: world.platform.promote(
            a.model, version=a.version, reason=a.reason, promoted_by="mlrunbook", idempotency_key=key
        ),
        repeatable=False,
        settles=A_START,
        half_way=lambda a, before, now: _is_named_alone(a.version, before, now),
    ),
}
