"""Is somebody probing the model? Judged from the prediction log alone: whoever asks may lie about who they are.

To find the decision boundary one asks for the same machine again and again with readings that hardly differ, and to see what the model
does at its edges one sends readings no machine can have. Machines at work do neither. A caller who asks slowly, a handful of times an
hour, is not seen here; nor is one where the log is about a few assets only: there is nobody to tell theirs from.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor
from statistics import median, pstdev
from typing import Any, TypeGuard

from mlrunbook.domain.evaluation.performance import percent
from mlrunbook.domain.observed import Prediction
from mlrunbook.domain.plural import counted

LEAST_ROWS = 200
LEAST_REFERENCE = 200
CELL = 0.25  # of a reference standard deviation: readings that agree to this in every feature hardly differ
# Different readings that hardly differ: so many at least, and so many times what the machines themselves ever showed.
LEAST_ALIKE, TIMES_USUAL = 25, 10
MOST = 1e150  # its square is a float still
OUTSIDE = 0.5  # of the reference's span, beyond its end
LEAST_IMPOSSIBLE = 25
FEW_ASSETS = 0.05  # of the assets asked for: impossible readings of more than these are a broken sensor or pipeline, not a caller
LEAST_ASSETS = 20  # one of them is FEW_ASSETS; a log about fewer cannot show that something is of a few
# Whoever probes asks again and again. A machine with a broken sensor is asked about as often as it ever was.
TIMES_ASKED = 3


@dataclass(frozen=True)
class Probing:
    """`suspicious` None: too few rows to tell. `alike` counts near-duplicates, `flips` the clusters of them on both sides of the
    threshold, `impossible` readings far outside what machines show; `assets` whom they claim to be about, most first."""

    suspicious: bool | None
    alike: int
    impossible: int
    flips: int
    assets: tuple[str, ...]
    rows: int
    sentence: str


def judge_probing(recent: Sequence[Prediction], reference: Sequence[Prediction]) -> Probing:
    """Compare the newest rows of the log with a sample of ordinary ones. Rows in any order.

    Suspicious: many different readings of one corner that hardly differ, or different impossible readings of a few assets that are asked
    about more often than others. One rare value, however often it comes, is a broken sensor.
    """
    if len(recent) < LEAST_ROWS or len(reference) < LEAST_REFERENCE:
        sentence = f"{len(recent)} recent and {len(reference)} reference rows: too few to see probing in"
        return Probing(None, 0, 0, 0, (), len(recent), sentence)
    asked = Counter(p.asset_id for p in recent)
    if len(asked) < LEAST_ASSETS:
        sentence = f"the {len(recent)} recent requests are about {counted(len(asked), 'asset')}: too few to tell a caller from a machine"
        return Probing(None, 0, 0, 0, (), len(recent), sentence)
    columns = _columns(reference)
    usual = max((len(cluster) for cluster in _clusters(reference, columns).values()), default=0)
    least = max(LEAST_ALIKE, TIMES_USUAL * usual * len(recent) / len(reference))
    clusters = [cluster for cluster in _clusters(recent, columns).values() if len(cluster) >= least] if columns else []
    alike = [p for cluster in clusters for p in cluster.values()]
    flips = sum(len({p.label for p in cluster.values()}) > 1 for cluster in clusters)
    impossible = _impossible(recent, columns, asked)
    by_asset = Counter(p.asset_id for p in (*alike, *impossible))
    assets = tuple(name for name, _ in sorted(by_asset.items(), key=lambda item: (-item[1], item[0])))
    if not assets:
        sentence = f"nobody probes: {len(recent)} recent requests differ as machines do"
        return Probing(False, 0, 0, 0, (), len(recent), sentence)
    parts = []
    if alike:
        sides = "; they lie on both sides of the threshold" if flips else ""
        parts.append(f"{len(alike)} requests that hardly differ from each other{sides}")
    if impossible:
        parts.append(f"{len(impossible)} with readings no machine has shown ({_worst(impossible, columns)})")
    named = ", ".join(assets[:3]) + (f" and {len(assets) - 3} more" if len(assets) > 3 else "")
    share = percent(len({p.id for p in (*alike, *impossible)}) / len(recent))
    sentence = f"{' and '.join(parts)}, {share} of the {len(recent)} newest, about {named}"
    return Probing(True, len(alike), len(impossible), flips, assets, len(recent), sentence)


def _impossible(recent: Sequence[Prediction], columns: Mapping[str, Column], asked: Mapping[str, int]) -> list[Prediction]:
    """Different readings outside of what is possible, of a few assets that are asked about far more often than most; else none."""
    strange = [p for p in recent if any(_is_outside(p.features.get(name), limits) for name, (limits, _) in columns.items())]
    assets = Counter(p.asset_id for p in strange)
    if len(strange) < LEAST_IMPOSSIBLE or len(assets) > max(1, FEW_ASSETS * len(asked)):
        return []
    usual = median(n for name, n in asked.items() if name not in assets)
    often = [name for name in assets if asked[name] >= TIMES_ASKED * usual]
    told = [p for p in strange if p.asset_id in often]
    different = {
        tuple(float(v) for name, (limits, _) in columns.items() if is_number(v := p.features.get(name)) and _is_outside(v, limits))
        for p in told
    }
    return told if len(told) >= LEAST_IMPOSSIBLE and len(different) >= LEAST_IMPOSSIBLE // 2 else []


Column = tuple[tuple[float, float], float]  # (lowest, highest) that is possible, standard deviation


def _columns(reference: Sequence[Prediction]) -> dict[str, Column]:
    """The numeric features that vary. What was never negative cannot be."""
    values: dict[str, list[float]] = defaultdict(list)
    for p in reference:
        for name, value in p.features.items():
            if is_number(value):
                values[name].append(float(value))
    found = {}
    for name, column in values.items():
        low, high, spread = min(column), max(column), pstdev(column)
        if spread > 0:
            margin = OUTSIDE * (high - low)
            lowest = max(low - margin, 0.0) if low >= 0 else low - margin
            found[name] = ((lowest, high + margin), spread)
    return found


def _clusters(rows: Sequence[Prediction], columns: Mapping[str, Column]) -> dict[tuple[Any, ...], dict[tuple[Any, ...], Prediction]]:
    """Different readings by the cell they lie in; a reading asked for twice counts once: that is a retry, or a store that stands still."""
    cells: dict[tuple[Any, ...], dict[tuple[Any, ...], Prediction]] = defaultdict(dict)
    names = sorted(columns)
    for p in rows:
        reading = tuple(value for name in names if is_number(value := p.features.get(name)))
        if len(reading) == len(names):
            cell = (p.asset_type, *(floor(v / (CELL * columns[n][1])) for n, v in zip(names, reading, strict=True)))
            cells[cell].setdefault(reading, p)
    return cells


def _is_outside(value: Any, limits: tuple[float, float]) -> bool:
    return is_number(value) and not limits[0] <= value <= limits[1]


def _worst(rows: Sequence[Prediction], columns: Mapping[str, Column]) -> str:
    """The feature that is impossible most often, with its most extreme value."""
    outside = {
        name: [float(v) for p in rows if is_number(v := p.features.get(name)) and _is_outside(v, limits)]
        for name, (limits, _) in columns.items()
    }
    name = max(sorted(outside), key=lambda n: len(outside[n]))
    middle = sum(columns[name][0]) / 2
    return f"{name} {max(outside[name], key=lambda v: abs(v - middle)):g}"


def is_number(value: Any) -> TypeGuard[float]:
    """A number that can be counted with: no bool, no NaN, none that is infinite or too large for a float."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MOST
