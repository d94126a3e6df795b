"""Is somebody probing the model? Judged from the prediction log alone: whoever asks may lie about who they are.

To find the decision boundary one asks for the same machine again and again with readings that hardly differ, and to see what the model
does at its edges one sends readings no machine can have. Machines at work do neither. A caller who asks slowly, a handful of times an
hour, is not seen here; nor is one where the log is about a few assets only: there is nobody to tell theirs from.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING

from mlrunbook.domain.evaluation.performance import percent
from mlrunbook.domain.evaluation.prediction_rows import numbers_of
from mlrunbook.domain.observed import Prediction
from mlrunbook.domain.plural import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

LEAST_ROWS = 200
LEAST_REFERENCE = 200
CELL = 0.25  # of a reference standard deviation: readings that agree to this in every feature hardly differ
# Different readings that hardly differ: so many at least, and so many times what the machines themselves ever showed.
LEAST_ALIKE, TIMES_USUAL = 25, 10
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
    if not columns:
        return Probing(False, 0, 0, 0, (), len(recent), f"nobody probes: no feature of the {len(recent)} recent requests varies")
    readings = _Readings(recent, columns)
    usual = max((len(cluster) for cluster in _Readings(reference, columns).clusters().values()), default=0)
    least = max(LEAST_ALIKE, TIMES_USUAL * usual * len(recent) / len(reference))
    clusters = [cluster for cluster in readings.clusters().values() if len(cluster) >= least]
    alike = [p for cluster in clusters for p in cluster.values()]
    flips = sum(len({p.label for p in cluster.values()}) > 1 for cluster in clusters)
    strange = _impossible(readings, asked)
    impossible = [recent[i] for i in strange]
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
        parts.append(f"{len(impossible)} with readings no machine has shown ({_worst(readings, strange)})")
    named = ", ".join(assets[:3]) + (f" and {len(assets) - 3} more" if len(assets) > 3 else "")
    share = percent(len({p.id for p in (*alike, *impossible)}) / len(recent))
    sentence = f"{' and '.join(parts)}, {share} of the {len(recent)} newest, about {named}"
    return Probing(True, len(alike), len(impossible), flips, assets, len(recent), sentence)


@dataclass(frozen=True)
class _Readings:
    """The rows as a table of the features that vary: a column each, NaN where a row has no number there."""

    rows: Sequence[Prediction]
    columns: Mapping[str, Column]

    @cached_property
    def values(self) -> Floats:
        import numpy as np

        return np.column_stack([numbers_of(self.rows, name) for name in self.columns])

    @cached_property
    def outside(self) -> Bools:
        """What no machine can read."""
        import numpy as np

        low = np.array([limits[0] for limits, _ in self.columns.values()])
        high = np.array([limits[1] for limits, _ in self.columns.values()])
        told: Bools = (self.values < low) | (self.values > high)
        return told

    def clusters(self) -> dict[tuple[str, bytes], dict[bytes, Prediction]]:
        """Different readings by the cell they lie in; a reading asked for twice counts once: that is a retry, or a store that stands
        still."""
        import numpy as np

        spread = np.array([spread for _, spread in self.columns.values()])
        with np.errstate(over="ignore"):
            places = np.floor(self.values / (CELL * spread)) + 0.0  # -0 is 0
        cells: dict[tuple[str, bytes], dict[bytes, Prediction]] = defaultdict(dict)
        for i in np.flatnonzero(np.isfinite(self.values).all(axis=1)).tolist():
            p = self.rows[i]
            cells[p.asset_type, places[i].tobytes()].setdefault(self.values[i].tobytes(), p)
        return cells


def _impossible(readings: _Readings, asked: Mapping[str, int]) -> list[int]:
    """Different readings outside of what is possible, of a few assets that are asked about far more often than most; else none. Rows."""
    import numpy as np

    strange: list[int] = np.flatnonzero(readings.outside.any(axis=1)).tolist()
    rows = readings.rows
    assets = Counter(rows[i].asset_id for i in strange)
    if len(strange) < LEAST_IMPOSSIBLE or len(assets) > max(1, FEW_ASSETS * len(asked)):
        return []
    usual = median(n for name, n in asked.items() if name not in assets)
    told = [i for i in strange if asked[rows[i].asset_id] >= TIMES_ASKED * usual]
    different = {tuple(readings.values[i][readings.outside[i]].tolist()) for i in told}
    return told if len(told) >= LEAST_IMPOSSIBLE and len(different) >= LEAST_IMPOSSIBLE // 2 else []


Column = tuple[tuple[float, float], float]  # (lowest, highest) that is possible, standard deviation


def _columns(reference: Sequence[Prediction]) -> dict[str, Column]:
    """The numeric features that vary. What was never negative cannot be."""
    found = {}
    for name in sorted({name for p in reference for name in p.features}):
        values = numbers_of(reference, name)
        known = values[values == values]
        spread = float(known.std()) if len(known) else 0.0
        if spread > 0:
            low, high = float(known.min()), float(known.max())
            margin = OUTSIDE * (high - low)
            lowest = max(low - margin, 0.0) if low >= 0 else low - margin
            found[name] = ((lowest, high + margin), spread)
    return found


def _worst(readings: _Readings, impossible: Sequence[int]) -> str:
    """The feature that is impossible most often, with its most extreme value."""
    outside, values = readings.outside[impossible], readings.values[impossible]
    j = int(outside.sum(axis=0).argmax())
    name = list(readings.columns)[j]
    middle = sum(readings.columns[name][0]) / 2
    return f"{name} {max(values[outside[:, j], j].tolist(), key=lambda v: abs(v - middle)):g}"
