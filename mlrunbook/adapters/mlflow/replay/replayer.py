"""`ports.Replayer` by MLflow: the parent fetches rows and artefacts with its logins, the scoring process gets a folder and the inputs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from mlrunbook.adapters.mlflow.client import MlflowClient, inputs_of
from mlrunbook.adapters.mlflow.replay import artefacts, scoring
from mlrunbook.adapters.mlflow.replay.scoring import Limits, Rows, Scored
from mlrunbook.adapters.warehouse.values import yes_and_no
from mlrunbook.domain.errors import NotFound, Refused
from mlrunbook.domain.observed import Prediction, Replayed, VersionReplay
from mlrunbook.domain.policy.connections import PredictionsPart, RegistryPart, Replay, ReplayPart
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.ports import PredictionLog


@dataclass(frozen=True)
class _Parts:
    """Of the policy of a model that has opted in."""

    replay: ReplayPart
    registry: RegistryPart
    log: PredictionsPart


class MlflowReplay:
    """For the models whose policy says `replay: {kind: mlflow}`. `logs`: the log of a part."""

    def __init__(self, policy: Policy, clients: Callable[[str], MlflowClient], logs: Callable[[PredictionsPart], PredictionLog]) -> None:
        self._policy, self._clients, self._logs = policy, clients, logs

    def replay(
        self, model: str, *, versions: Sequence[str], since: datetime | None = None, until: datetime | None = None, limit: int = 4000
    ) -> Replayed:
        """What comes first of `versions`, and then the last of them, is scored first: the rest where time is left."""
        parts = self._parts(model)
        scoring.demand_confinement()
        deadline = time.monotonic() + parts.replay.timeout_s
        most = min(limit, parts.replay.most_rows)
        rows = tuple(self._logs(parts.log).prediction_log(model, limit=most, since=since, until=until, labelled_only=True))[::-1]
        asked = list(dict.fromkeys(versions))
        if not rows:
            return Replayed((), tuple(VersionReplay(one, ()) for one in asked))
        order = [*asked[:1], *reversed(asked[1:])]
        found = {one: self._version(model, parts, one, rows, deadline - time.monotonic()) for one in order}
        return Replayed(rows, tuple(found[one] for one in asked))

    def _parts(self, model: str) -> _Parts:
        parts = self._policy.rules_of(model).platform
        if parts is None or parts.replay.kind is not Replay.MLFLOW or parts.registry is None or parts.predictions is None:
            raise NotFound(f"replay by MLflow is off for {model} (models.{model}.platform.replay)")
        return _Parts(parts.replay, parts.registry, parts.predictions)

    def _version(self, model: str, parts: _Parts, version: str, rows: Sequence[Prediction], left_s: float) -> VersionReplay:
        if left_s <= 1:
            return VersionReplay(version, (), f"it was not scored: replay.timeout_s ({parts.replay.timeout_s:g}) was over before its turn")
        with tempfile.TemporaryDirectory(prefix="mlrunbook-artefact-") as folder:
            into, given = Path(folder), parts.replay
            client, local = self._clients(parts.registry.connection), Path(given.artifacts) if given.artifacts else None
            try:
                most = int(given.most_size_mb * 1_000_000)
                fetched = artefacts.fetch(client, parts.registry.name or model, version, into, most_bytes=most, local=local)
                asked = [_inputs(one, given.inputs) for one in rows]
                needs = inputs_of((into / "MLmodel").read_text(encoding="utf-8", errors="replace"))
            except Refused as error:
                return VersionReplay(version, (), f"{version} cannot be fetched: {error}")
            seen = VersionReplay(version, (), None, fetched.size_bytes, digest=fetched.digest)
            lacking = sorted(name for name in needs or () if all(name not in one for one in asked))
            if lacking:
                why = f"{version} needs {', '.join(lacking)}, which the log does not carry: name the columns in replay.inputs"
                return replace(seen, problem=why)
            asked = [{name: one.get(name) for name in needs} for one in asked] if needs else asked
            limits = Limits(min(left_s, given.timeout_s), given.memory_mb, given.python)
            scored = scoring.score(into, Rows(asked, *yes_and_no(parts.log.positive, parts.log.negative)), limits)
        return _with(seen, scored)


def _with(seen: VersionReplay, scored: Scored) -> VersionReplay:
    if scored.problem:
        return replace(seen, problem=f"{seen.version} cannot score logged requests: {scored.problem}")
    return replace(seen, scores=scored.scores, latency_ms=scored.latency_ms, labels_only=scored.labels_only)


def _inputs(row: Prediction, renamed: Mapping[str, str]) -> dict[str, Any]:
    """By the model's names."""
    taken = dict(row.features)
    return taken | {name: taken[column] for name, column in renamed.items() if column in taken}
