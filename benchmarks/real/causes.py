"""Injected kinds on a table's own rows: how often the diagnosis takes the right path, and how often it advises retraining wrongly.

A model is fitted on the first `train` of the rows, another on half of them (the version before); windows are blocks of the later log.
What counts are the calls: windows whose fall the counts prove, as triage judges one window. Where nothing was injected a call is
counted too, and a broken feature that is named is a false one.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path as Folder
from time import process_time
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from benchmarks.real.injected import KINDS, Kind, Window
from benchmarks.real.tables import Described, best_threshold, described_in, in_order, read
from mlrunbook.domain.actions import Path
from mlrunbook.domain.evaluation.outcome_history import grade_metrics
from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics, WindowMetrics
from mlrunbook.domain.evaluation.probing import judge_probing
from mlrunbook.domain.evaluation.rollback_target import choose_target
from mlrunbook.domain.investigation import findings as checks
from mlrunbook.domain.investigation.diagnosis import Diagnosis, diagnose
from mlrunbook.domain.investigation.facts import About, Changed, Log, Versions, gather
from mlrunbook.domain.investigation.inputs.faults import judge_inputs
from mlrunbook.domain.investigation.upstream import courses
from mlrunbook.domain.observed import Change, Missing, Prediction, Replayed, ServingStatus, VersionReplay
from mlrunbook.domain.policy.policy import Policy

Array = np.ndarray[Any, Any]
POLICY = Policy()
BEGAN = datetime(2026, 1, 5, tzinfo=UTC)
APART = timedelta(seconds=3.6)
BASELINE, LOGGED, PARTS = 12_000, 4000, 8  # outcomes of the baseline; rows read, as the investigation reads them
SIZES = ((4000, 1.0, False), (3000, 0.3, True))  # rows of the window, share that is broken, one asset alone
SLICES = 120
MOST_CATEGORIES = 50
LEAST_RIGHT, MOST_RETRAIN = 0.95, 0.01
STATUS = ServingStatus("real", "v2.0.0", "v1.5.0", None, True, "v2.0.0")


@dataclass(frozen=True)
class Subject:
    """A table with two models of it."""

    features: pd.DataFrame  # numbers; categories as codes
    categories: dict[str, Sequence[Any]]
    outcome: Array
    asset: Array | None
    segment: Array | None
    model: Any
    before: Any
    threshold: float
    first: int
    block: int
    columns: list[str]  # what the model listens to most first


@dataclass
class Tally:
    """Of one kind. `calls`: windows whose fall is proven; `right` and `retrain` among them; `named` among all windows."""

    windows: int = 0
    calls: int = 0
    right: int = 0
    retrain: int = 0  # advised, and wrongly
    named: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


def measure_all(folder: Folder, seeds: int, seed: int) -> Iterator[tuple[str, dict[str, Tally]]]:
    """Every described table of the folder, as it is done."""
    for file in described_in(folder):
        described, table = read(file)
        yield file.stem, measure_causes(described, table, seeds=seeds, seed=seed)


def missed(injected: dict[str, dict[str, Any]]) -> list[str]:
    """The figures of all tables together that are over what is promised."""
    calls = sum(f["calls"] for f in injected.values())
    if not calls:
        return []
    right, retrain = (sum(f[of] * f["calls"] for f in injected.values() if f["calls"]) / calls for of in ("right_path", "retrain_wrongly"))
    out = [f"causes: the right path in {right:.1%} of {calls} calls"] * (right < LEAST_RIGHT)
    return out + [f"causes: retraining wrongly advised in {retrain:.1%} of {calls} calls"] * (retrain > MOST_RETRAIN)


def show(injected: dict[str, dict[str, Any]]) -> None:
    table = Table(
        title="Injected: calls with the right path (retraining wrongly advised) of the calls, and windows in which the cause is named"
    )
    for column in ("kind", *injected):
        table.add_column(column, justify="left" if column == "kind" else "right")
    for kind in dict.fromkeys(name for f in injected.values() for name in f["kinds"]):
        table.add_row(kind, *(_cell(f["kinds"].get(kind)) for f in injected.values()))
    Console(width=40 + 22 * max(len(injected), 1)).print(table)


def _cell(of: dict[str, int] | None) -> str:
    if of is None:
        return ""
    wrongly = f" ({of['retrain']})" if of["retrain"] else ""
    return f"{of['right']}{wrongly} of {of['calls']}; {of['named']}/{of['windows']}"


def measure_causes(
    described: Described, table: pd.DataFrame, *, seeds: int = 2, kinds: Sequence[Kind] = KINDS, seed: int = 1
) -> dict[str, Tally]:
    if not _feature_names(described, table):
        return {}
    subject = subject_of(described, table)
    return {kind.name: _measured(subject, kind, seeds, seed) for kind in kinds if len(subject.columns) > 1 or kind.name != "swapped"}


def figures(tallies: dict[str, Tally]) -> dict[str, Any]:
    """Of one table, or of several together: what is promised of all kinds, and each kind's own."""
    shown = ("windows", "calls", "right", "retrain", "named")
    each = {name: {what: getattr(tally, what) for what in shown} for name, tally in tallies.items()}
    calls, windows = sum(t.calls for t in tallies.values()), sum(t.windows for t in tallies.values())
    right, retrain = sum(t.right for t in tallies.values()), sum(t.retrain for t in tallies.values())
    return {
        "calls": calls,
        "right_path": right / calls if calls else None,
        "retrain_wrongly": retrain / calls if calls else None,
        "seconds_each": sum(t.seconds for t in tallies.values()) / max(windows, 1),
        "kinds": each,
    }


def subject_of(described: Described, table: pd.DataFrame) -> Subject:
    """The table must have a feature; a `score` that it brings is no feature."""
    table, outcome = in_order(described, table)
    features, categories = _encoded(table[_feature_names(described, table)])
    trained, tuned = int(len(table) * described.train), int(len(table) * (described.train + described.tune))
    model, before = _fitted(features[:trained], outcome[:trained]), _fitted(features[: trained // 2], outcome[: trained // 2])
    scores = _scores(model, features[trained:tuned])
    spaced = pd.Timedelta(described.every).total_seconds() if described.every else 0
    block = int(pd.Timedelta(described.block).total_seconds() / spaced) if spaced else 0
    left = len(table) - tuned
    return Subject(
        features, categories, outcome,
        table[described.asset].astype(str).to_numpy() if described.asset else None,
        table[described.segment].astype(str).to_numpy() if described.segment else None,
        model, before, best_threshold(scores, outcome[trained:tuned]), tuned,
        min(max(block or left // 12, 20), max(left // 8, 1)), _by_importance(model, features[tuned:]),
    )  # fmt: skip


def _feature_names(described: Described, table: pd.DataFrame) -> list[str]:
    other = {described.label, described.time, described.score, described.asset, described.outcome_delay}
    return list(described.features or [c for c in table.columns if c not in other and _is_feature(table[c])])


def _is_feature(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) or column.nunique() <= MOST_CATEGORIES


def _encoded(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, Sequence[Any]]]:
    coded, categories = {}, {}
    for name in table:
        if pd.api.types.is_numeric_dtype(table[name]):
            coded[name] = table[name].astype(float)
            continue
        codes, categories[name] = pd.factorize(table[name])
        coded[name] = pd.Series(np.where(codes < 0, np.nan, codes), table.index)
    return pd.DataFrame(coded), categories


def _fitted(features: pd.DataFrame, outcome: Array) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(max_iter=120, learning_rate=0.08, max_leaf_nodes=15, random_state=0, early_stopping=False)
    return model.fit(features.to_numpy(float), outcome)


def _scores(model: Any, features: pd.DataFrame) -> Array:
    scores: Array = model.predict_proba(features.to_numpy(float))[:, 1]
    return scores


def _by_importance(model: Any, features: pd.DataFrame) -> list[str]:
    """By how far scores move when a column is shuffled."""
    rng, part = np.random.default_rng(0), features[:4000]
    base, moved = _scores(model, part), {}
    for name in features:
        other = part.copy()
        other[name] = rng.permutation(other[name].to_numpy())
        moved[name] = float(np.abs(_scores(model, other) - base).mean())
    return sorted(moved, key=lambda name: -moved[name])


def _measured(subject: Subject, kind: Kind, seeds: int, seed: int) -> Tally:
    tally = Tally()
    for s in range(seeds):
        for rows, share, alone in SIZES:
            if share == 1.0 or kind.partial:
                _one(subject, kind, tally, np.random.default_rng([seed, s, rows]), rows, share, alone)
    return tally


def _one(subject: Subject, kind: Kind, tally: Tally, rng: np.random.Generator, n: int, share: float, alone: bool) -> None:
    old, new = _window(subject, rng, BASELINE, 0.0, alone), _window(subject, rng, n, share, alone)
    if kind.before:
        kind.before(old)
    kind.inject(new)
    before, now = _log(subject, old, 0), _log(subject, new, BASELINE)
    metrics = ModelMetrics("real", _metrics(now), _metrics(before))
    called = bool(grade_metrics(metrics, POLICY.severity).is_real)
    began = process_time()
    try:
        diagnosis, faults = _diagnosed(subject, new, metrics, before, now)
    except Exception:
        tally.windows, tally.calls = tally.windows + 1, tally.calls + 1
        tally.wrong.append(traceback.format_exc(limit=-2))
        return
    tally.seconds += process_time() - began
    expected = kind.expected
    names = {"column": subject.columns[0], "segment": f"asset type {new.odd_segment}"}.get(expected.names, expected.names)
    named = names in " ".join([diagnosis.sentence, *faults]) if expected.fault else not faults
    right = diagnosis.path is expected.path
    if expected.threshold:
        right = named = right and abs((diagnosis.target_threshold or 9) - subject.threshold) < 1e-6
    tally.windows += 1
    tally.named += named
    if not expected.fault and not named:
        tally.wrong.append(f"{n} rows: named though whole: {'; '.join(faults)}"[:400])
    if not called:
        return
    tally.calls += 1
    tally.right += right
    tally.retrain += diagnosis.path is Path.RETRAIN and expected.path is not Path.RETRAIN
    if not right:
        tally.wrong.append(f"{n} rows: {diagnosis.path}: {diagnosis.sentence}"[:400])


def _window(subject: Subject, rng: np.random.Generator, n: int, share: float, alone: bool) -> Window:
    """Blocks of the log, drawn with replacement."""
    starts = np.arange(subject.first, len(subject.features) - subject.block + 1, subject.block)
    drawn = rng.choice(starts, n // subject.block + 1)
    rows = np.concatenate([np.arange(at, at + subject.block) for at in drawn])[:n]
    asset = subject.asset[rows] if subject.asset is not None else np.array([f"asset_{i % 400}" for i in range(n)])
    segment = subject.segment[rows] if subject.segment is not None else rng.choice(["a", "b", "c"], n)
    names, counts = np.unique(segment, return_counts=True)
    fed = subject.features.iloc[rows].reset_index(drop=True).copy()
    return Window(
        fed, subject.outcome[rows].copy(), np.array(["asset_0"] * n) if alone else asset, segment, subject.threshold,
        np.arange(n) >= n - int(n * share), subject.columns, rng, odd_segment=str(names[counts.argmax()]),
    )  # fmt: skip


def _log(subject: Subject, w: Window, first: int) -> list[Prediction]:
    scores, held = _scores(subject.model, w.fed), (w.fed if w.logged is None else w.logged).astype(object)
    for name, values in subject.categories.items():
        held[name] = [values[int(c)] if c == c and 0 <= c < len(values) and c == int(c) else c for c in w.fed[name]]
    names = list(held.columns)
    rows = held.where(held.notna(), None).to_numpy().tolist()
    off = w.hours_off if w.hours_off is not None else np.zeros(len(scores))
    return [
        Prediction(
            first + i + 1, BEGAN + (first + i) * APART + timedelta(hours=float(off[i])), str(w.asset[i]), str(w.segment[i]),
            dict(zip(names, rows[i], strict=True)), float(scores[i]), bool(scores[i] >= w.threshold), "v2.0.0", float(w.threshold), 5.0,
            bool(w.outcome[i]),
        )
        for i in range(len(scores))
    ]  # fmt: skip


def _metrics(rows: Sequence[Prediction]) -> WindowMetrics:
    label, outcome = np.array([p.label for p in rows]), np.array([bool(p.outcome) for p in rows])
    kind = np.array([p.asset_type for p in rows])
    part = np.arange(len(rows)) * SLICES // len(rows)

    def counts(at: Array) -> Confusion:
        a, b = label[at], outcome[at]
        return Confusion(int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum()), int((~a & ~b).sum()))

    n = len(rows)
    return WindowMetrics(
        rows[0].at, max(rows[-1].at, rows[0].at + APART), n, n, counts(np.ones(n, bool)), flagged_share=float(label.mean()),
        latency_p95_ms=5.0, error_rate=0.0, null_rate=0.0, versions=("v2.0.0",),
        blocks=tuple(counts(part == k) for k in range(SLICES)), by_asset_type={str(s): counts(kind == s) for s in np.unique(kind)},
    )  # fmt: skip


def _diagnosed(
    subject: Subject, w: Window, metrics: ModelMetrics, before: list[Prediction], now: list[Prediction]
) -> tuple[Diagnosis, list[str]]:
    """As an investigation looks at them, right after the last row."""
    at, ends = max(p.at for p in now), np.linspace(0, len(before), PARTS + 1).astype(int)[1:]
    old = [p for end in ends for p in before[max(0, end - LOGGED // PARTS) : end]]
    new, drops, baseline = now[-LOGGED:], POLICY.severity.drops, metrics.baseline.confusion
    changes = _changes(subject, w, now)
    found = [
        *checks.recent_changes(changes, at),
        *checks.model_performance(metrics, POLICY.severity),
        checks.inference_latency(metrics),
        checks.affected_asset_types(metrics, drops),
        checks.feature_distributions(new, old, POLICY.drift),
        checks.missing_features(new, old),
        checks.data_freshness(new, at),
        *checks.feature_store(Missing("no feature store")),
        checks.server_logs("", (), at),
        checks.resource_utilization(Missing("not measured")),
        checks.predictions_vs_outcomes(new, baseline, drops),
        checks.error_patterns(new),
    ]
    replayed = Replayed(
        tuple(new),
        (
            VersionReplay("v1.5.0", tuple(map(float, _scores(subject.before, w.fed)[-len(new) :]))),
            VersionReplay("v2.0.0", tuple(p.score for p in new)),
        ),
    )
    targets = choose_target(replayed, current="v2.0.0", threshold=new[-1].threshold, baseline_f1=baseline.f1, policy=drops)
    inputs = judge_inputs(old, new, baseline, drops)
    log = Log(new, courses(old, new), judge_probing(new, old), inputs, new, old)
    facts = gather(
        About(at, "v2.0.0"), POLICY, changed=Changed(changes), metrics=metrics, log=log, features=None,
        versions=Versions(STATUS, None, targets),
    )  # fmt: skip
    return diagnose(found, facts, at), list(inputs.faults)


def _changes(subject: Subject, w: Window, now: Sequence[Prediction]) -> list[Change]:
    if not w.reported:
        return []
    detail = {"from": {"threshold": subject.threshold}, "to": {"threshold": w.threshold}}
    return [Change("config", "threshold", "ops", now[0].at, detail=detail)]
