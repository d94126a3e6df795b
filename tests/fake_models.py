"""The registry's side of `tests.fakes.FileWorld`: versions, staging, promotion, replay, and a trainer, over the same JSON file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from mlrunbook.domain.errors import Fenced, NotFound
from mlrunbook.domain.observed import ModelVersion, Prediction, Replayed, ServingStatus, VersionReplay

if TYPE_CHECKING:
    from tests.fakes import FileWorld

SCORED = ("air_temperature_k", "torque_nm")
REPLAY_ROWS = 1200
START: dict[str, Any] = {"versions": ["v1.4.0", "v1.5.0", "v2.0.0"], "trained": [], "staging": None, "unreadable": {}}


def scored(i: int, *, sound: bool) -> tuple[float, bool]:
    """Row i's score and outcome. A sixth are failures. A sound version tells them apart at 0.5 (recall .82, precision about .82), a
    bad one's scores say nothing."""
    failed = i % 6 == 0
    told = (i // 6) % 50 < 41 if failed else (i * 7) % 250 < 9
    return ((0.9 if told else 0.05) if sound else (i * 37 % 100) / 100), failed


class FileRegistry:
    """Mixed into FileWorld."""

    _now: Callable[[], datetime]
    _known: Callable[[str], dict[str, Any]]
    _apply: Callable[[str, Mapping[str, Any]], None]
    status: Callable[[str], ServingStatus]

    def versions(self, model: str) -> Sequence[ModelVersion]:
        then = self._now() - timedelta(days=60)
        return [self._version(v, then + timedelta(days=i)) for i, v in enumerate(self._known(model)["versions"])]

    def _version(self, version: str, at: datetime) -> ModelVersion:
        return ModelVersion(version, at, at - timedelta(days=90), at - timedelta(days=1), SCORED, 0.5, ("L", "M", "H"))

    def register(self, model: str, *, version: str, registered_by: str, idempotency_key: str) -> ModelVersion:
        s = self._known(model)
        if version not in s["versions"]:
            if version not in s["trained"]:
                raise NotFound(f"there is no model version {version}")
            self._apply(f"register:{version}", {"versions": [*s["versions"], version]})
        return self._version(version, self._now())

    def stage(self, model: str, *, version: str | None, staged_by: str, idempotency_key: str) -> ServingStatus:
        s = self._known(model)
        if version is not None and version not in s["versions"]:
            raise NotFound(f"{model} has no version {version}")
        if s["staging"] != version:
            self._apply(f"stage:{version}", {"staging": version})
        return self.status(model)

    def promote(self, model: str, *, version: str, reason: str, promoted_by: str, idempotency_key: str) -> ServingStatus:
        s = self._known(model)
        if version not in s["versions"]:
            raise NotFound(f"{model} has no version {version}")
        if idempotency_key not in s["keys"] and s["serving"] != version:
            changes = {**self._released(s, version, "deployment"), "staging": None, "keys": [*s["keys"], idempotency_key]}
            self._apply(f"promote:{version}", changes)
        return self.status(model)

    def _released(self, s: Mapping[str, Any], version: str, kind: str) -> dict[str, Any]:
        before = {"kind": s["released_by"], "ref": s["serving"], "at": s["deployed_at"]}
        return {
            "serving": version,
            "previous": s["serving"],
            "deployed_at": self._now().isoformat(),
            "released_by": kind,
            "released_before": [before, *s["released_before"]],
        }

    def replay(
        self, model: str, *, versions: Sequence[str], since: datetime | None = None, until: datetime | None = None, limit: int = 4000
    ) -> Replayed:
        """`unreadable` (version -> why) are those that cannot score the logged requests."""
        s, n = self._known(model), min(limit, REPLAY_ROWS)
        serving = s["route"] or s["serving"]
        until = until or self._now()
        rows = []
        for i in range(n):
            score, failed = scored(i, sound=serving not in s["bad_versions"])
            at = until - timedelta(seconds=n - i)
            label = score >= s["loaded_threshold"]
            rows.append(Prediction(i, at, f"asset_{i}", "LMH"[i % 3], {}, score, label, serving, s["loaded_threshold"], 20.0, failed))
        return Replayed(tuple(rows), tuple(self._replayed(s, v, n) for v in versions))

    def _replayed(self, s: Mapping[str, Any], version: str, n: int) -> VersionReplay:
        if version in s["unreadable"]:
            return VersionReplay(version, (), s["unreadable"][version])
        if version not in s["versions"]:
            return VersionReplay(version, (), f"there is no version {version}")
        sound = version not in s["bad_versions"]
        return VersionReplay(version, tuple(scored(i, sound=sound)[0] for i in range(n)), None, 400_000, 2.0)


class FileTrainer:
    """`ports.Trainer` that has the version ready at once; trains a version once, however often it is asked."""

    def __init__(self, world: FileWorld) -> None:
        self._world = world

    def train(
        self, model: str, *, version: str, start: datetime, end: datetime, log: Callable[[str], None], alive: Callable[[], bool]
    ) -> None:
        if not alive():
            raise Fenced("a newer run has taken over")
        trained = self._world.state["trained"]
        if version not in trained:
            self._world._apply(f"train:{version}", {"trained": [*trained, version]})
        log(f"trained {version} on {start:%Y-%m-%d} to {end:%Y-%m-%d}")
