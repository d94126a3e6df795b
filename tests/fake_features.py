"""A feature store over the JSON file of `tests.fakes.FileWorld`: what is stale, empty, suspended or out is what the test says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from mlrunbook.domain.errors import NotFound, Refused, Transient
from mlrunbook.domain.observed import FeatureFault, FeatureProblem, FeatureStoreState, ViewSchedule, ViewState

if TYPE_CHECKING:
    from tests.fakes import FileWorld

VIEWS = {"asset_sensors": ("torque_nm",), "asset_wear": ("tool_wear_min",)}
# Views whose rows are old, and whose schedule is suspended; feature -> empty "online" or in the "source"; `out`: why reads fail.
START: dict[str, Any] = {"stale": [], "suspended": [], "empty": {}, "out": None}


def trouble(features: Mapping[str, Any]) -> bool:
    """Whether the model reads something wrong."""
    return bool(features["stale"] or features["empty"] or features["out"])


class FileSchedules:
    """The platform's side, mixed into FileWorld."""

    _now: Callable[[], datetime]
    _apply: Callable[[str, Mapping[str, Any]], None]
    _answer: Callable[[], dict[str, Any]]

    def feature_schedules(self) -> Sequence[ViewSchedule]:
        suspended = self._answer()["features"]["suspended"]
        return [ViewSchedule(v, v in suspended, self._now() - timedelta(seconds=1)) for v in VIEWS]

    def resume_feature_schedules(self, views: Sequence[str], *, resumed_by: str, idempotency_key: str) -> Sequence[ViewSchedule]:
        features = self._answer()["features"]
        suspended = [v for v in features["suspended"] if v not in views]
        if suspended != features["suspended"]:
            self._apply(f"resume:{','.join(views)}", {"features": features | {"suspended": suspended}})
        return self.feature_schedules()


class FileFeatures:
    """`ports.FeatureStore`. A view that is materialised is whole again."""

    def __init__(self, world: FileWorld) -> None:
        self._world = world

    def inspect(self, *, entities: int = 200, until: datetime | None = None) -> FeatureStoreState:
        s, now = self._world.state["features"], self._world._now()
        if s["out"]:
            problem = FeatureProblem(FeatureFault.ONLINE_LOCKED, f"the online store cannot be read: {s['out']}")
            return FeatureStoreState(tuple(ViewState(v) for v in VIEWS), (problem,), read_ok=False)
        return FeatureStoreState(tuple(self._view(v, s, now, entities) for v in VIEWS), read_ok=True)

    def _view(self, view: str, s: Mapping[str, Any], now: datetime, entities: int) -> ViewState:
        stale = view in s["stale"]
        loaded = now - timedelta(hours=5 if stale else 0, seconds=1)
        empty = {f: s["empty"].get(f) for f in VIEWS[view]}
        return ViewState(
            view,
            job_end_at=loaded,
            updated_at=loaded,
            source_newest_at=now - timedelta(seconds=1),
            online_newest_at=loaded,
            entities=entities,
            behind=entities if stale else 0,
            null_online={f: 1.0 if where else 0.0 for f, where in empty.items()},
            null_source={f: 1.0 if where == "source" else 0.0 for f, where in empty.items()},
        )

    def materialize(
        self, views: Sequence[str], *, since: datetime | None, until: datetime, progress: Callable[[str, int, int], None]
    ) -> None:
        s = self._world._answer()["features"]
        if s["out"]:
            raise Transient(f"the online store is locked: {s['out']}")
        for view in views:
            if view not in VIEWS:
                raise NotFound(f"there is no feature view {view!r}")
            if any(s["empty"].get(f) == "source" for f in VIEWS[view]):
                raise Refused(f"the source of {view} is empty")
            progress(view, 100, 100)
        stale = [v for v in s["stale"] if v not in views]
        empty = {f: where for f, where in s["empty"].items() if not any(f in VIEWS[v] for v in views)}
        self._world._apply(f"materialize:{','.join(views)}", {"features": s | {"stale": stale, "empty": empty}})
