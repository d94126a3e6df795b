"""Does the choice of a rollback target refuse the bad and take the good? Planted cases with really trained models.

Each case: a fresh window of 2,000 to 4,000 requests, a bad version in production, one bad target and one sound one. A target counts as
bad by its construction, and where it can score at all also by measure: on 100,000 rows its F1 is over 20 % below the baseline, or it
was never trained on an asset type that occurs.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from mlrunbook.domain.errors import Refused
from mlrunbook.domain.evaluation.rollback_target import Judged, choose_target
from mlrunbook.domain.observed import ModelVersion, Prediction, Replayed, VersionReplay
from mlrunbook.domain.policy.judging import DropPolicy
from mlrunbook.drills.simulator.faults import missing_outcomes_as_failures, swap_stop_codes
from mlrunbook.drills.simulator.fleet import Fleet
from mlrunbook.local.platform import artefacts, training
from mlrunbook.local.platform.artefacts import LoadedModel
from mlrunbook.local.platform.columns import RAW

CASES = 280
TRUTH_ROWS = 100_000
AT = datetime(2026, 3, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Trained:
    """`problem`: why the platform cannot replay it. `f1`: on the large fresh set, at the serving threshold."""

    kind: str
    model: LoadedModel | None
    problem: str | None = None
    f1: float | None = None

    @property
    def types(self) -> tuple[str, ...]:
        return self.model.manifest.asset_types if self.model else ("L", "M", "H")


@dataclass(frozen=True)
class Pool:
    threshold: float  # that the servers decide by: the reference version's
    baseline_f1: float
    current: list[Trained]
    bad: list[Trained]
    sound: list[Trained]


def _fit(kind: str, frame: pd.DataFrame, seed: int) -> Trained:
    estimator, manifest = training.train(frame, model="m", version=kind, seed=seed, trained_from=AT, trained_to=AT)
    return Trained(kind, LoadedModel(manifest, estimator))


def pool(rows: int, *, sound: int, truth_rows: int = TRUTH_ROWS) -> Pool:
    """Train the models. Each kind of bad target is planted as often as the others."""
    rng = np.random.default_rng(7)

    def frame(seed: int) -> pd.DataFrame:
        return Fleet(seed).training(rows)

    def mislabelled(seed: int, magnitude: float) -> pd.DataFrame:
        given = frame(seed)
        return given.assign(failed=swap_stop_codes(given, magnitude, rng))

    def stale(seed: int) -> pd.DataFrame:
        """The drives' limits were others then."""
        fleet = Fleet(seed)
        fleet.limit_power(4300.0, 7800.0)
        return fleet.training(rows)

    def shuffled(seed: int, column: str) -> pd.DataFrame:
        given = frame(seed)
        return given.assign(**{column: rng.permutation(given[column].to_numpy())})

    def without(seed: int, type_: str) -> pd.DataFrame:
        given = Fleet(seed).training(rows * 2)
        return given[given["type"] != type_].reset_index(drop=True)

    def missing(seed: int) -> pd.DataFrame:
        given = frame(seed)
        return given.assign(failed=missing_outcomes_as_failures(given, 1.0, rng))

    reference = _fit("sound", frame(100), 0)
    current = [
        _fit("swapped codes", mislabelled(1, 1.0), 1),
        _fit("swapped codes", mislabelled(2, 0.8), 2),
        _fit("flags all", missing(3), 3),
    ]
    bad = [
        _fit("mislabelled", mislabelled(11, 1.0), 11),
        _fit("mislabelled", mislabelled(12, 0.8), 12),
        _fit("stale regime", stale(13), 13),
        _fit("stale regime", stale(14), 14),
        _fit("shuffled feature", shuffled(15, "torque_nm"), 15),
        _fit("shuffled feature", shuffled(16, "rotational_speed_rpm"), 16),
        *(_fit("lacks an asset type", without(17 + i, t), 17 + i) for i, t in enumerate("LMH")),
        *_broken(reference),
    ]
    truth = Fleet(999).readings(truth_rows)
    threshold = reference.model.manifest.threshold if reference.model else 0.5

    def measured(one: Trained) -> Trained:
        return replace(one, f1=_f1(one.model, truth, threshold)) if one.model else one

    others = [_fit("sound", Fleet(101 + i).training(rows + 2000 * i), i) for i in range(sound)]
    return Pool(
        threshold, measured(reference).f1 or 0.0, [measured(m) for m in current], [measured(m) for m in bad], [measured(m) for m in others]
    )


def _f1(model: LoadedModel, frame: pd.DataFrame, threshold: float) -> float | None:
    return training.confusion(frame["failed"].to_numpy(), model.score(frame) >= threshold).f1


def _broken(sound: Trained) -> Iterator[Trained]:
    """A sound model whose folder was tampered with, and one that wants what nobody serves: as the platform refuses them."""
    assert sound.model
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("tampered artefact", "unserved feature"):
            where = Path(folder) / kind.replace(" ", "-")
            artefacts.save(sound.model.estimator, where, sound.model.manifest)
            if kind == "tampered artefact":
                content = bytearray((where / artefacts.ARTEFACT).read_bytes())
                content[len(content) // 2] ^= 1
                (where / artefacts.ARTEFACT).write_bytes(content)
            else:
                body = json.loads((where / artefacts.MANIFEST).read_text())
                (where / artefacts.MANIFEST).write_text(json.dumps(body | {"features": [*body["features"], "vibration_mm_s"]}))
            try:
                yield Trained(kind, artefacts.load(where))
            except Refused as refused:
                yield Trained(kind, None, str(refused))


def run(models: Pool, cases: int, *, with_manifest: bool = True) -> dict[str, Any]:
    """Judge planted cases; shares of bad and good targets by verdict."""
    rng = np.random.default_rng(42)
    kinds = sorted({b.kind for b in models.bad})
    verdicts: dict[str, Counter[str]] = {kind: Counter() for kind in [*kinds, "sound"]}
    chosen = Counter[str]()
    for case in range(cases):
        of_kind = [b for b in models.bad if b.kind == kinds[case % len(kinds)]]
        given = {
            "v2.0.0": models.current[int(rng.integers(len(models.current)))],
            "v1.4.0": of_kind[int(rng.integers(len(of_kind)))],
            "v1.5.0": models.sound[int(rng.integers(len(models.sound)))],
        }
        frame = Fleet(10_000 + case).readings(int(rng.integers(2000, 4001)))
        known = {name: _version(name, one) for name, one in given.items()} if with_manifest else None
        choice = choose_target(
            _replayed(frame, given),
            current="v2.0.0",
            threshold=models.threshold,
            baseline_f1=models.baseline_f1,
            policy=DropPolicy(),
            known=known,
        )
        for verdict in choice.ranking:
            verdicts[given[verdict.version].kind][verdict.judged] += 1
        chosen[given[choice.target].kind if choice.target else "nothing"] += 1
    bad = sum((verdicts[kind] for kind in kinds), Counter[str]())
    return {
        "cases": cases,
        "bad_not_taken": 1 - bad[Judged.ACCEPTED] / bad.total(),
        "bad_refused": bad[Judged.REFUSED] / bad.total(),
        "good_not_taken": 1 - verdicts["sound"][Judged.ACCEPTED] / verdicts["sound"].total(),
        "good_refused": verdicts["sound"][Judged.REFUSED] / verdicts["sound"].total(),
        "chose_sound": chosen["sound"] / cases,
        "by_kind": {kind: dict(counts) for kind, counts in verdicts.items()},
    }


def _version(name: str, one: Trained) -> ModelVersion:
    return ModelVersion(name, AT, AT, AT, RAW, 0.5, one.types)


def _replayed(frame: pd.DataFrame, given: dict[str, Trained]) -> Replayed:
    scores = {name: tuple(map(float, one.model.score(frame))) if one.model else () for name, one in given.items()}
    rows = tuple(
        Prediction(i, AT + timedelta(seconds=i), asset, type_, {}, score, False, "v2.0.0", 0.5, 1.0, outcome=bool(failed))
        for i, (asset, type_, score, failed) in enumerate(
            zip(frame["asset_id"], frame["type"], scores["v2.0.0"], frame["failed"], strict=True)
        )
    )
    versions = tuple(VersionReplay(name, scores[name], one.problem) for name, one in given.items())
    return Replayed(rows, versions)


def main() -> None:
    console, began = Console(), time.perf_counter()
    models = pool(30_000, sound=10)
    made = Table(title=f"models, at threshold {models.threshold:g}; the baseline's F1 is {models.baseline_f1:.3f}")
    for column in ("kind", "F1 on 100,000 fresh rows"):
        made.add_column(column)
    for group, ones in (("in production: ", models.current), ("bad target: ", models.bad), ("", models.sound)):
        for one in ones:
            made.add_row(group + one.kind, f"{one.f1:.3f}" if one.f1 is not None else one.problem)
    console.print(made)
    result = run(models, CASES)
    blind = run(models, CASES, with_manifest=False)
    table = Table(title=f"{CASES} planted cases")
    for column in ("target", "accepted", "refused", "not enough evidence"):
        table.add_column(column)
    for kind, counts in result["by_kind"].items():
        table.add_row(kind, *(str(counts.get(j, 0)) for j in Judged))
    console.print(table)
    without = {key: round(blind[key], 3) for key in ("bad_not_taken", "good_not_taken")}
    line = result | {"without_manifests": without, "seconds": round(time.perf_counter() - began, 1)}
    print(json.dumps({"benchmark": "candidates"} | {k: round(v, 4) if isinstance(v, float) else v for k, v in line.items()}))
