"""Every verb and read of the two ports that act on a model, and names of models that nobody serves."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from mlrunbook.domain.actions import Configure, Isolate, Restart, RouteTraffic, Scale, UndoRollout
from mlrunbook.ports import ModelPlatform, ServingRuntime

NOW = datetime(2026, 3, 2, tzinfo=UTC)


def _rehearsed(runtime: ServingRuntime, model: str) -> object:
    actions = (
        Scale(model, 0),
        RouteTraffic(model, "v1.5.0"),
        Configure(model, {"threshold": 0.4}),
        Restart(model, "x"),
        Isolate(model, True),
    )
    return runtime.dry_run(model, [*actions, UndoRollout(model, 1)])


# `preserve` never fails: it says what is missing.
VERBS: Mapping[str, Callable[[ServingRuntime, str], object]] = {
    "observe": lambda r, m: r.observe(m),
    "scale": lambda r, m: r.scale(m, replicas=0),
    "scale_back": lambda r, m: r.scale(m, replicas=1),
    "route": lambda r, m: r.route(m, version="v1.5.0"),
    "route_away": lambda r, m: r.route(m, version=None),
    "read_config": lambda r, m: r.read_config(m),
    "write_config": lambda r, m: r.write_config(m, {"auto_work_orders": False}, expected_revision="1"),
    "restart": lambda r, m: r.restart(m, restart_id="stranger"),
    "logs": lambda r, m: r.logs(m),
    "instances": lambda r, m: r.instances(m),
    "resources": lambda r, m: r.resources(m),
    "revisions": lambda r, m: r.revisions(m),
    "undo_rollout": lambda r, m: r.undo_rollout(m, revision=1),
    "dry_run": _rehearsed,
    "dry_run_nothing": lambda r, m: r.dry_run(m, []),
    "isolate": lambda r, m: r.isolate(m, isolated=True),
    "lift": lambda r, m: r.isolate(m, isolated=False),
}

_BY: dict[str, Any] = {"idempotency_key": "stranger"}
# `alerts` and `models` may be asked about all models, and the schedules are of views, not of models.
PLATFORM_VERBS: Mapping[str, Callable[[ModelPlatform, str], object]] = {
    "status": lambda p, m: p.status(m),
    "metrics": lambda p, m: p.metrics(m),
    "history": lambda p, m: p.history(m, days=7),
    "outcome_blocks": lambda p, m: p.outcome_blocks(m, since=NOW - timedelta(days=1), until=NOW, block_s=3600.0),
    "prediction_log": lambda p, m: p.prediction_log(m),
    "changes": lambda p, m: p.changes(m, since=NOW),
    "versions": lambda p, m: p.versions(m),
    "replay": lambda p, m: p.replay(m, versions=["v1.5.0"]),
    "work_orders": lambda p, m: p.work_orders(m),
    "rollback": lambda p, m: p.rollback(m, target_version="v1.5.0", reason="worse", rolled_back_by="lead", **_BY),
    "register": lambda p, m: p.register(m, version="v1.5.0", registered_by="lead", **_BY),
    "stage": lambda p, m: p.stage(m, version="v1.5.0", staged_by="lead", **_BY),
    "unstage": lambda p, m: p.stage(m, version=None, staged_by="lead", **_BY),
    "promote": lambda p, m: p.promote(m, version="v1.5.0", reason="better", promoted_by="lead", **_BY),
    "flag_pending_work_orders": lambda p, m: p.flag_pending_work_orders(m, reason="unsafe", **_BY),
}


def port_methods(port: type) -> set[str]:
    return {name for name, member in inspect.getmembers(port) if inspect.isfunction(member) and not name.startswith("_")}


def strangers(served: str) -> Iterator[str]:
    """Names close to the one served, and what patterns and defaults might let through."""
    yield from (f"{served}2", served[:-1], served.upper(), f"{served}.", f"x{served}", "churn", "default", "*", "None", "")


def names(served: str) -> st.SearchStrategy[str]:
    """Any name that a model may have, often one near the name served."""
    near = st.sampled_from(list(strangers(served)))
    return (near | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,30}", fullmatch=True)).filter(lambda name: name not in (served, ""))
