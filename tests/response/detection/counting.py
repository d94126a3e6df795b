"""A platform that counts outcomes by block, and alerts about its model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import numpy as np

from mlrunbook.base.tokens import Identity
from mlrunbook.domain.evaluation.outcome_history import OutcomeBlocks
from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics
from mlrunbook.domain.observed import Change
from mlrunbook.gateway.webhooks import registry
from mlrunbook.gateway.webhooks.ingest import ingest, received
from mlrunbook.response.world import World
from tests.fakes import MODEL, T0, FileWorld

SLOT = timedelta(minutes=10)
_numbers = count(1)


class Counting(FileWorld):
    """A platform that counts outcomes by block: three failures and 120 sound assets in ten minutes, of which the model catches four in five
    until `falls_at`, and `recall` from then on. `shows` are the counts of the last hour, whatever the blocks say."""

    falls_at: datetime | None = None
    recall: float = 0.3
    shows: Confusion | None = None
    changed: Sequence[datetime] = ()
    begins: datetime = T0 - timedelta(days=30)

    def changes(self, model: str, *, since: datetime) -> Sequence[Change]:
        return [Change("deployment", f"v{i}", "a pipeline", at, {}) for i, at in enumerate(self.changed) if at >= since]

    def counted(self, since: datetime, until: datetime) -> Confusion:
        slots = range(-int((T0 - max(since, self.begins)) / SLOT), -int(np.ceil((T0 - until) / SLOT)))
        cells = np.zeros(4, int)
        for slot in slots:
            at, rng = T0 + slot * SLOT, np.random.default_rng(10**6 + slot)
            fallen = self.falls_at is not None and at >= self.falls_at
            failed, sound = rng.poisson(3), rng.poisson(120)
            tp, fp = rng.binomial(failed, self.recall if fallen else 0.8), rng.binomial(sound, 0.003)
            cells += (tp, fp, failed - tp, sound - fp)
        return Confusion(*cells.tolist())

    def outcome_blocks(self, model: str, *, since: datetime, until: datetime, block_s: float, version: str | None = None) -> OutcomeBlocks:
        length = timedelta(seconds=block_s)
        starts = [since + k * length for k in range(int((until - since) / length))]
        return OutcomeBlocks(since, block_s, tuple(self.counted(at, at + length) for at in starts))

    def metrics(self, model: str, **asked: Any) -> ModelMetrics:
        seen = super().metrics(model, **asked)
        now, before = seen.current, seen.baseline
        current = self.shows or self.counted(now.since, now.until)
        base = self.counted(before.since, before.until)
        return replace(
            seen,
            current=replace(now, tally=current, labelled=current.n, by_asset_type={}, by_risk_level={}),
            baseline=replace(before, tally=base, labelled=base.n, by_asset_type={}, mature_age_s=0.0),
        )


def alert(world: World, level: str, name: str = "ModelF1Drop", **labels: str) -> str:
    said = {"alertname": name, "model": MODEL, "severity": level} | labels
    one = {"status": "firing", "labels": said, "annotations": {"summary": f"{name} fired"}, "startsAt": T0.isoformat()}
    body = json.dumps({"version": "4", "alerts": [one | {"fingerprint": f"f{next(_numbers)}"}]}).encode()
    sender = Identity("", "a sender", None, frozenset())
    (incident_id,) = ingest(world, registry.of("alertmanager"), received(body, {}, world), body, sender=sender).incidents
    return str(incident_id)


FEW = Confusion(tp=5, fp=4, fn=4, tn=700)  # past every plain limit, and nobody can say
