"""Did the inputs move? Schema, nulls, unseen categories, then Kolmogorov-Smirnov and chi-square; one false discovery rate over all.

`Reference.of(columns)` sorts each column once; `reference.compare(recent)` may be called many times. A column is a sequence, or a numpy
array, with a value a row: numbers, or anything else as a category. Nulls are None and NaN; infinite numbers count as null. What says the
same is the same: true, 1, 1.0, "1" and "True" are one value, whoever writes the log.

Rows that resemble each other are not independent, and every test here assumes they are. So n rows count as n / design effect
(`effective_rows`), which is what thinning would leave, without throwing rows away. It is measured on the reference alone: a step in the
middle of the recent rows would look like dependence, and hide itself.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from mlrunbook.domain.evaluation.column_values import categories_of, name_of, numbers_of
from mlrunbook.domain.evaluation.effective_rows import (
    Alike,
    cycles_seen,
    frequent,
    kept_by_assets,
    likeness,
    odd_hours,
    rows_as_one,
    tenths,
)
from mlrunbook.domain.evaluation.performance import percent
from mlrunbook.domain.policy.judging import DriftPolicy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

Columns = Mapping[str, Any]  # by name: a sequence or numpy array with a value a row
Keys = Sequence[Any] | None

MOST_CODES = 20
LEAST_CYCLES = 3  # of a counter, in the rows of an asset: before that its place in the cycle moves
TOO_FEW = "too few independent values"
LEAST_EXPECTED = 5.0  # in a cell of the chi-square table (Cochran 1954); rarer categories are judged together


class Found(StrEnum):
    """What is wrong with a column, in the order in which it is looked for."""

    SCHEMA = "schema"
    NULLS = "nulls"
    UNSEEN = "unseen"
    MOVED = "moved"


@dataclass(frozen=True)
class ColumnDrift:
    """`effect` and `p` are of the distribution (KS D or Jensen-Shannon, 0..1; p adjusted for the number of tests), None: not judged.

    `shift_sd`: how far the mean of a numeric column moved, in standard deviations of the reference, signed.
    """

    found: tuple[Found, ...]
    effect: float | None
    p: float | None
    shift_sd: float | None
    sentence: str


@dataclass(frozen=True)
class DriftVerdict:
    """`drifted` None: too little to judge anything. `steps` has a sentence for each of `Found`."""

    drifted: bool | None
    columns: Mapping[str, ColumnDrift]
    steps: tuple[str, ...]
    sentence: str

    def as_dict(self) -> dict[str, Any]:
        """Every column by name, JSON-able."""
        return {name: asdict(c) | {"found": [str(f) for f in c.found]} for name, c in self.columns.items()}


class Reference:
    """The columns that later rows are compared with, sorted once."""

    def __init__(self, rows: int, columns: Mapping[str, _Column]) -> None:
        self.rows, self._columns = rows, columns

    @classmethod
    def of(cls, columns: Columns, *, at: Keys = None, entity: Keys = None) -> Reference:
        """`at`: one sortable key a row, its time, best unique; None: the rows are in time order. Whole days of datetimes are compared
        with each other, so that a daily or weekly cycle is no memory. `entity`: what a row is about (an asset): rows of the same one
        resemble each other."""
        rows = _Rows.of(columns, at, entity)
        return cls(rows.n, {name: _Column.read(columns[name], rows, measured=True) for name in sorted(columns)})

    def compare(self, recent: Columns, policy: DriftPolicy | None = None, *, at: Keys = None, entity: Keys = None) -> DriftVerdict:
        """`at` and `entity` as in `of`."""
        policy, rows = policy or DriftPolicy(), _Rows.of(recent, at, entity)
        seen: dict[str, _Compared] = {}
        for name in sorted({*self._columns, *recent}):
            new = _Column.read(recent[name], rows) if name in recent else None  # one at a time: a million rows of all would not fit
            seen[name] = _compare(self._columns.get(name), new, policy, rows)
        return _verdict(seen, policy, f"{rows.n} recent against {self.rows} reference rows")


@dataclass
class _Compared:
    """`tests`: unadjusted p and whether the effect is large enough to matter."""

    tests: dict[Found, tuple[float, bool, str]]
    schema: str = ""
    effect: float | None = None
    shift_sd: float | None = None
    unjudged: str = ""  # why its distribution is not judged


def _verdict(seen: Mapping[str, _Compared], policy: DriftPolicy, against: str) -> DriftVerdict:
    tests = [(name, what) for name, c in seen.items() for what in c.tests]
    adjusted: dict[tuple[str, Found], float] = {}
    if tests:
        from scipy.stats import false_discovery_control  # scipy takes 1 s to import: only where drift is checked

        ps = false_discovery_control([min(seen[name].tests[what][0], 1.0) for name, what in tests])
        adjusted = dict(zip(tests, map(float, ps), strict=True))
    columns: dict[str, ColumnDrift] = {}
    for name, c in seen.items():
        hits = [what for what, (_, matters, _) in c.tests.items() if matters and adjusted[name, what] < policy.false_alarm_rate]
        words = [c.schema] if c.schema else []
        words += [c.tests[what][2] for what in hits]
        found = ((Found.SCHEMA,) if c.schema else ()) + tuple(hits)
        if not words:
            words = [f"not judged: {c.unjudged or TOO_FEW}" if c.effect is None else "as before"]
        columns[name] = ColumnDrift(found, c.effect, adjusted.get((name, Found.MOVED)), c.shift_sd, ", ".join(words))
    return _summed_up(columns, seen, against)


def _summed_up(columns: Mapping[str, ColumnDrift], seen: Mapping[str, _Compared], against: str) -> DriftVerdict:
    judged = [name for name, c in columns.items() if c.effect is not None]
    unjudged = [name for name, c in columns.items() if c.effect is None and not c.found]

    def listed(what: Found) -> str:
        said = {n: seen[n].schema if what is Found.SCHEMA else seen[n].tests[what][2] for n, c in columns.items() if what in c.found}
        return ", ".join(f"{name} ({words})" for name, words in said.items())

    lines = {
        Found.SCHEMA: ("the schema changed: {}", "every column is there with its type"),
        Found.NULLS: ("missing values rose: {}", "missing values did not rise"),
        Found.UNSEEN: ("values never seen before: {}", "no category is new"),
        Found.MOVED: ("the distribution moved for {}", f"none of {len(judged)} distributions moved"),
    }
    steps = {what: bad.format(listed(what)) if listed(what) else good for what, (bad, good) in lines.items()}
    left = _left(unjudged, seen)
    if hits := [text for what, text in steps.items() if listed(what)]:
        drifted, said = True, "; ".join(hits)
    elif judged:
        drifted, said = False, f"none of {len(judged)} features moved"
    else:
        return DriftVerdict(None, columns, tuple(steps.values()), f"{against}: {TOO_FEW} to compare{_why(unjudged, seen)}")
    return DriftVerdict(drifted, columns, tuple(steps.values()), "; ".join(filter(None, (said, against, left))))


def _left(unjudged: Sequence[str], seen: Mapping[str, _Compared]) -> str:
    """Which columns are neither sound nor drifted, and why."""
    return f"not judged, with {TOO_FEW}: {', '.join(unjudged)}{_why(unjudged, seen)}" if unjudged else ""


def _why(unjudged: Sequence[str], seen: Mapping[str, _Compared]) -> str:
    """Of the first column of which that is known."""
    said = next((f"{name}: {seen[name].unjudged}" for name in unjudged if seen[name].unjudged), "")
    return f" ({said})" if said else ""


def _compare(old: _Column | None, new: _Column | None, policy: DriftPolicy, recent: _Rows) -> _Compared:
    if old is None or old.is_empty:
        newly = new is not None and not new.is_empty
        return _Compared({}, schema="it is new" if newly and new is not None and new.known >= policy.min_values else "")
    if new is None:
        return _Compared({}, schema="it is gone")
    if new.n < policy.min_values or old.n < policy.min_values:
        return _Compared({}, unjudged=f"{min(new.n, old.n)} rows, {policy.min_values} needed")
    by_category = bool(old.counts and new.counts)
    if not new.is_empty and not by_category and not (old.is_countable and new.is_countable):
        was, now = ("text", "numbers") if old.counts else ("numbers", "text")
        return _Compared({}, schema=f"it held {was} and now holds {now}")
    seen = _Compared({})
    if new.nulls:
        rise = new.nulls / new.n - old.nulls / old.n
        words = f"{percent(old.nulls / old.n)} -> {percent(new.nulls / new.n)}"
        seen.tests[Found.NULLS] = (_p_of_more(old.nulls, old.n, new.nulls, new.n), rise > policy.null_rise, words)
    n_old, n_new = old.known / old.design_effect(old.cluster, old.odd), new.known / old.design_effect(recent.mean_cluster, recent.odd)
    if min(n_old, n_new) < policy.min_independent:
        seen.unjudged = f"its rows resemble each other and count as {min(n_old, n_new):.0f}, {policy.min_independent} needed"
        return seen
    if not by_category and old.cycles < LEAST_CYCLES:
        seen.unjudged = f"it counts up and was reset {old.cycles:.1f} times an asset in the reference, {LEAST_CYCLES} needed"
        return seen
    if by_category:
        _mixed(seen, old, new, n_old, n_new, policy)
    else:
        _moved(seen, old, new, n_old, n_new, policy)
    return seen


def _p_of_more(old: int, n_old: int, new: int, n_new: int) -> float:
    """Fisher's exact test, one-sided: as many as `new` of `n_new`, were the two sides alike."""
    from scipy.stats import hypergeom

    return float(hypergeom.sf(new - 1, n_old + n_new, old + new, n_new))


def _moved(seen: _Compared, old: _Column, new: _Column, n_old: float, n_new: float, policy: DriftPolicy) -> None:
    from scipy.special import kolmogorov

    assert old.ordered is not None
    assert new.ordered is not None
    seen.effect = ks_distance(old.ordered, new.ordered)
    sd, step = float(old.ordered.std()), float(new.ordered.mean() - old.ordered.mean())
    seen.shift_sd = step / sd if sd and old.ordered[0] < old.ordered[-1] else None  # of a constant, rounding would make a tiny deviation
    root = (n_old * n_new / (n_old + n_new)) ** 0.5
    p = float(kolmogorov((root + 0.12 + 0.11 / root) * seen.effect))  # Stephens 1970: the limit, corrected for finite n
    if seen.shift_sd is not None and abs(seen.shift_sd) >= 0.1:
        words = f"{'up' if step > 0 else 'down'} by {abs(seen.shift_sd):.1f} standard deviations"
    else:
        words = f"in shape, by {seen.effect:.2f} in KS distance"
    seen.tests[Found.MOVED] = (p, seen.effect > policy.effect_floor, words)


def _mixed(seen: _Compared, old: _Column, new: _Column, n_old: float, n_new: float, policy: DriftPolicy) -> None:
    import numpy as np
    from scipy.spatial.distance import jensenshannon
    from scipy.stats import chi2_contingency

    names = sorted({*old.counts, *new.counts})
    table = np.array([[c.counts.get(name, 0) for name in names] for c in (old, new)], dtype=float)
    shares = table / table.sum(axis=1, keepdims=True)
    # A column of ids always has new ones: each category is tested for itself, and the number of tries is paid for.
    fresh = {name: round(new.counts[name] * n_new / new.known) for name in new.counts if name not in old.counts}
    if fresh:
        most = max(fresh, key=lambda name: (fresh[name], name))
        p = len(names) * _p_of_more(0, round(n_old), fresh[most], round(n_new))
        others = f" and {len(fresh) - 1} more" if len(fresh) > 1 else ""
        seen.tests[Found.UNSEEN] = (p, True, f"{most} in {percent(new.counts[most] / new.known)}{others}")
    seen.effect = float(jensenshannon(*shares)) if len(names) > 1 else 0.0
    independent = shares * np.array([[n_old], [n_new]])
    rare = independent.sum(axis=0) * min(n_old, n_new) / (n_old + n_new) < LEAST_EXPECTED
    cells = np.column_stack([independent[:, ~rare], independent[:, rare].sum(axis=1)]) if rare.any() else independent
    cells = cells[:, cells.sum(axis=0) > 0]
    p = float(chi2_contingency(cells).pvalue) if cells.shape[1] > 1 else 1.0
    biggest = int(np.abs(shares[1] - shares[0]).argmax())
    words = f"{names[biggest]} {percent(shares[0][biggest])} -> {percent(shares[1][biggest])}"
    seen.tests[Found.MOVED] = (p, seen.effect > policy.effect_floor, words)


def ks_distance(old: Floats, new: Floats) -> float:
    """sup |F_old - F_new| of two sorted samples. It is reached at, or just before, a step of F_new; F_old may be of any length."""
    import numpy as np

    steps = np.arange(len(new) + 1) / len(new)
    right = np.searchsorted(old, new, side="right")
    tied = bool(np.any(old[right - 1] == new))  # where right is 0 this is the largest, which is above
    left = np.searchsorted(old, new, side="left") if tied else right
    up, down = steps[1:] - right / len(old), left / len(old) - steps[:-1]
    return float(max(up.max(), down.max(), 0.0))


@dataclass(frozen=True)
class _Rows:
    """`order` None: in time order already. `seconds`: their times in that order, where they have any; `entity` a number for each entity,
    likewise. `pairs`: each row and the one before it of the same entity. `mean_cluster`: the size of the entity that a random row belongs
    to."""

    n: int
    order: Ints | None = None
    seconds: Floats | None = None
    pairs: tuple[Ints, Ints] | None = None
    mean_cluster: float = 1.0
    entity: Ints | None = None

    @property
    def odd(self) -> float:
        return odd_hours(self.seconds)

    @classmethod
    def of(cls, columns: Columns, at: Keys, entity: Keys) -> _Rows:
        import numpy as np

        n = max((len(values) for values in columns.values()), default=0)
        times = np.arange(n) if at is None else np.asarray(at)
        order = None if at is None or bool(np.all(times[1:] >= times[:-1])) else np.argsort(times, kind="stable")
        seconds = _seconds(times if order is None else times[order]) if at is not None and n else None
        if entity is None or n == 0:
            return cls(n, order, seconds)
        _, codes = np.unique(np.asarray(entity), return_inverse=True)
        ordered = codes if order is None else codes[order]
        by_entity = np.argsort(ordered, kind="stable")
        sizes = np.bincount(codes)
        same = np.diff(ordered[by_entity]) == 0
        return cls(n, order, seconds, (by_entity[1:][same], by_entity[:-1][same]), float((sizes**2).sum() / n), ordered)


def _seconds(times: Any) -> Floats | None:
    """Of datetimes; None for keys of another kind, which only order the rows."""
    import numpy as np

    if times.dtype.kind == "M":
        return np.asarray(times.astype("datetime64[us]"), dtype=np.float64) / 1e6
    return np.array([t.timestamp() for t in times]) if times.dtype == object and all(isinstance(t, datetime) for t in times) else None


@dataclass(frozen=True)
class _Column:
    """What is kept of a column: its known values sorted where they are numbers, counted where they are categories; both where they can be
    read as either (booleans, numbers written as text). `tau`: how many neighbours count as one (`tau_of_rows` where
    their hours make no whole day, which are a share of `odd`); `rho`: how much rows of one entity resemble each other, one after the
    other, `kept` however far apart; `cycles`: how often a counter was reset in them."""

    n: int
    known: int
    ordered: Floats | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    tau: float = 1.0
    rho: float = 0.0
    kept: float = 0.0
    cluster: float = 1.0
    cycles: float = math.inf
    odd: float = 0.0
    tau_of_rows: float = 0.0

    @classmethod
    def read(cls, values: Any, rows: _Rows, *, measured: bool = False) -> _Column:
        """`measured`: how much rows resemble each other, too, as a reference needs it."""
        import numpy as np

        numbers, is_either = numbers_of(values)
        raw: Any
        if numbers is not None:
            raw = numbers if rows.order is None else numbers[rows.order]
            mask = np.isfinite(raw)
            known = raw if mask.all() else raw[mask]
            counts = Counter(name for v in values if (name := name_of(v)) is not None) if is_either else {}
            column = cls(len(raw), len(known), ordered=np.sort(known), counts=counts)
        else:
            codes, names = categories_of(values)
            raw = codes if rows.order is None else codes[rows.order]
            mask = raw >= 0
            known = raw if mask.all() else raw[mask]
            tally = np.bincount(known, minlength=len(names))
            column = cls(len(raw), len(known), counts=dict(zip(names, map(int, tally), strict=True)))
        if not measured or len(known) < 2 or known.min() == known.max():
            return column
        alike: Alike
        if column.ordered is not None:
            classes, marks = tenths(column.ordered, known), _ranks(column.ordered, raw, mask)
            mean, variance = marks[mask].mean(), marks[mask].var()
            alike = lambda one, other: float(np.mean((one - mean) * (other - mean)) / variance)  # noqa: E731
        else:
            classes, marks = frequent(known, tally), raw
            chance = float((tally / len(known)) @ (tally / len(known)))  # agreement beyond chance: the mean over all indicators
            alike = lambda one, other: (float(np.mean(one == other)) - chance) / (1 - chance)  # noqa: E731
        rho = likeness(marks, mask, rows.pairs, alike) if rows.pairs else 0.0
        seconds = None if rows.seconds is None else rows.seconds[mask]
        tau = rows_as_one(classes, seconds)
        tau_of_rows = tau if seconds is None else rows_as_one(classes, None)
        cycles = cycles_seen(marks, mask, rows.pairs) if rows.pairs and column.ordered is not None else math.inf
        kept = kept_by_assets(classes, rows.entity[mask]) if rows.entity is not None else 0.0
        memory = replace(column, tau=tau, tau_of_rows=tau_of_rows, rho=rho, kept=kept, cycles=cycles)
        return replace(memory, cluster=rows.mean_cluster, odd=rows.odd)

    @property
    def nulls(self) -> int:
        return self.n - self.known

    @property
    def is_empty(self) -> bool:
        return self.known == 0

    @property
    def is_countable(self) -> bool:
        """Numbers, or a few of them however they are written: codes and truth values. Many that are written as text are another type."""
        return self.ordered is not None and len(self.counts) <= MOST_CODES

    def design_effect(self, cluster: float, odd: float) -> float:
        """Rows that count as one, where a share of their time makes no whole day (`odd`). In a cluster of m rows with likeness rho they are
        1 + (m-1) rho, and never more than in an endless series that forgets; what an asset keeps it never forgets."""
        by_time = self.tau + odd * self.tau_of_rows if odd and self.tau_of_rows > self.tau else self.tau
        others = max(cluster, 1.0) - 1
        return max(by_time, min(1 + others * self.rho, (1 + self.rho) / (1 - self.rho)), 1 + others * self.kept)


def _ranks(ordered: Floats, raw: Any, mask: Any) -> Floats:
    """Of each row by its value, equal values by their first; 0 where it has none. A few spikes weigh no more than other rows."""
    import numpy as np

    return np.where(mask, np.searchsorted(ordered, raw), 0).astype(np.float64)
