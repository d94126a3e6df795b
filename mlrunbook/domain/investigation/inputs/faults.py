"""What is broken in the inputs of a model, by what its prediction log holds now and held in the baseline; and whether that explains a fall.

A fault is named with its feature, what happened to it, and since when. It explains a fall where the rows it did not touch are as good as
the baseline, or where it touched (nearly) all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

from mlrunbook.domain.evaluation.drift import ks_distance
from mlrunbook.domain.evaluation.performance import Confusion, Evidence, grade_drop
from mlrunbook.domain.evaluation.prediction_rows import confusion_of, in_time_order
from mlrunbook.domain.investigation.inputs import clock, marks
from mlrunbook.domain.investigation.inputs.columns import Column, Held, columns_of
from mlrunbook.domain.investigation.inputs.meaning import Meaning, meaning_lost
from mlrunbook.domain.investigation.inputs.mixed_up import mixed_up
from mlrunbook.domain.investigation.inputs.relations import apart, apart_from_last
from mlrunbook.domain.investigation.inputs.stretch import LEAST_ROWS, Stretch
from mlrunbook.domain.investigation.inputs.units import converted, offset
from mlrunbook.domain.investigation.upstream import failures_changed
from mlrunbook.domain.observed import Prediction
from mlrunbook.domain.policy.judging import DropPolicy
from mlrunbook.domain.records import Record, Recorded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

LEAST_REFERENCE = 100
LEAST_OF_A_GROUP, MOST_GROUPS = 60, 24
NEARLY_ALL = 0.8  # of the known outcomes: what is left says too little
LEAST_OF_WHAT_IS_OVER = 0.05  # of the rows: a spike that has passed explains no fall
MOVED = 0.1  # in KS distance
MOST_MIXED_UP_OF_A_GROUP = 12  # columns
SHOWN = 3


class Kind(StrEnum):
    MISSING = "missing"
    INFINITE = "infinite"
    TEXT = "text"
    MIXED_UP = "mixed_up"
    UNIT = "unit"
    CONSTANT = "constant"
    FILLED_IN = "filled_in"
    CUT_OFF = "cut_off"
    OFFSET = "offset"
    OUTSIDE = "outside"
    REPEATED = "repeated"
    COARSE = "coarse"
    APART = "apart"
    OTHER_MEANING = "other_meaning"
    CLOCK = "clock"


@dataclass(frozen=True)
class InputFault:
    """`rows`: the ids of the rows it touched. `until` None: it lasts. `group`: the asset or type that it is about; "" for all."""

    kind: Kind
    features: tuple[str, ...]
    words: str
    since: datetime
    until: datetime | None
    rows: frozenset[int]
    of: int
    group: str = ""

    @property
    def sentence(self) -> str:
        """'torque is 10 times what it was since 2026-03-02 03:00 UTC, in 100 of 3100 rows'."""
        span = f"since {self.since:%Y-%m-%d %H:%M} UTC" if self.until is None else f"{self.since:%Y-%m-%d %H:%M} to {self.until:%H:%M} UTC"
        where = f" of {self.group}" if self.group else ""
        return f"{self.words} {span}, in {len(self.rows)} of {self.of} rows{where}"


@dataclass(frozen=True)
class BrokenInputs(Recorded, key=Record.INPUTS):
    """`faults`: their sentences. `explains` True: rows that no fault touched are as good as the baseline, or hardly any are left. False:
    they are worse too. None: too few outcomes are known to tell."""

    faults: tuple[str, ...] = ()
    explains: bool | None = None
    sentence: str = "no feature is broken"

    @property
    def matters(self) -> bool:
        return bool(self.faults) and self.explains is not False


NOTHING_BROKEN = BrokenInputs()


def judge_inputs(
    reference: Sequence[Prediction], rows: Sequence[Prediction], baseline: Confusion | None = None, policy: DropPolicy | None = None
) -> BrokenInputs:
    """`rows`: those of now, with or without outcomes, in any order; `reference`: a sample of the baseline's."""
    faults = input_faults(reference, rows)
    if not faults:
        return NOTHING_BROKEN
    shown = "; ".join(f.sentence for f in faults[:SHOWN]) + (f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else "")
    explains, words = _explains(faults, rows, baseline, policy or DropPolicy())
    return BrokenInputs(tuple(fault.sentence for fault in faults), explains, f"{shown}; {words}" if words else shown)


def _explains(
    faults: Sequence[InputFault], rows: Sequence[Prediction], baseline: Confusion | None, policy: DropPolicy
) -> tuple[bool | None, str]:
    touched = frozenset().union(*(f.rows for f in faults))
    known = [p for p in rows if p.outcome is not None]
    if baseline is None or not known:
        return None, ""
    others = confusion_of(p for p in known if p.id not in touched)
    if others.n < (1 - NEARLY_ALL) * len(known):
        return True, "nearly every row is touched"
    verdict = grade_drop(baseline, others, policy)
    rest = f"the {others.n} other rows with a known outcome"
    if verdict.is_real:
        return False, f"but {rest} are worse too ({verdict.reason})"
    if verdict.evidence is Evidence.INSUFFICIENT:
        return None, f"{rest} hold too few failures to compare"
    return True, f"{rest} are as good as the baseline"


def input_faults(
    reference: Sequence[Prediction], rows: Sequence[Prediction], *, least_passed: float = LEAST_OF_WHAT_IS_OVER
) -> tuple[InputFault, ...]:
    """Those of all rows; where there are none, those of one asset type or asset alone. The most telling first. One that has passed counts
    where it touched at least `least_passed` of the rows."""
    before, now = in_time_order(reference), in_time_order(list({p.id: p for p in rows}.values()))
    if len(before) < LEAST_REFERENCE or len(now) < LEAST_ROWS:
        return ()
    table = _Table.of(before, now)
    found = [*_clock_faults(table), *_of(table)]
    found = found or [replace(one, group=group) for group, part in _groups(table) for one in _of(part) if _of_it_alone(table, one)]
    found = [fault for fault in found if fault.until is None or len(fault.rows) >= least_passed * fault.of]
    found += _together(table, {name for fault in found for name in fault.features})
    return tuple(_told_once(found))


def _told_once(faults: Sequence[InputFault]) -> Iterator[InputFault]:
    """A feature is named once, with what explains it best: the order of `Kind` is that of how much each says."""
    told: set[str] = set()
    order = list(Kind)
    for fault in sorted(faults, key=lambda f: (order.index(f.kind), -len(f.rows), f.features)):
        if fault.kind is Kind.CLOCK or not told & set(fault.features):
            told |= set(fault.features)
            yield fault


def _of_it_alone(table: _Table, fault: InputFault) -> bool:
    """Whether the rows of others, at the same time, hold what they held: else all moved, and the group's move is theirs."""
    import numpy as np

    if fault.kind not in (Kind.UNIT, Kind.OFFSET, Kind.OUTSIDE):
        return True
    end = fault.until or table.now[-1].at
    others = [i for i, p in enumerate(table.now) if fault.since <= p.at <= end and p.id not in fault.rows]
    mine = [i for i, p in enumerate(table.now) if p.id in fault.rows]
    before, now = table.columns[fault.features[0]]
    old, theirs, its = (np.sort(v[np.isfinite(v)]) for v in (before.numbers, now.numbers[others], now.numbers[mine]))
    if min(len(old), len(theirs), len(its)) < LEAST_ROWS:
        return True
    return ks_distance(old, theirs) < 0.5 * ks_distance(old, its)


@dataclass(frozen=True)
class _Table:
    before: Sequence[Prediction]
    now: Sequence[Prediction]
    columns: Mapping[str, tuple[Column, Column]]
    of_group: bool = False

    @cached_property
    def last_of_asset(self) -> tuple[Ints, Ints]:
        """Before and now, a row each: where the row before it of the same asset is; -1 where there is none."""
        return marks.places_of_last([p.asset_id for p in self.before]), marks.places_of_last([p.asset_id for p in self.now])

    @classmethod
    def of(cls, before: Sequence[Prediction], now: Sequence[Prediction]) -> _Table:
        return cls(before, now, columns_of(before, now))

    def numbers(self, but: Collection[str] = ()) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """Of the numeric columns, before and now."""
        kept = {name: pair for name, pair in self.columns.items() if pair[0].is_numeric and name not in but}
        return {n: p[0].numbers for n, p in kept.items()}, {n: p[1].numbers for n, p in kept.items()}

    def part(self, before: Sequence[int], now: Sequence[int]) -> _Table:
        import numpy as np

        old, new = np.asarray(before, np.int64), np.asarray(now, np.int64)
        columns = {name: (was.at(old), is_.at(new)) for name, (was, is_) in self.columns.items()}
        return _Table([self.before[i] for i in before], [self.now[i] for i in now], columns, of_group=True)

    def fault(
        self, kind: Kind, features: Sequence[str], words: str, at: Stretch, touched: Callable[[int], bool] | None = None
    ) -> InputFault:
        rows = self.now[at.start : at.end]
        ids = frozenset(p.id for i, p in enumerate(rows, at.start) if touched is None or touched(i))
        until = rows[-1].at if len(self.now) - at.end >= LEAST_ROWS else None
        return InputFault(kind, tuple(features), words, rows[0].at, until, ids, len(self.now))


def _groups(table: _Table) -> Iterator[tuple[str, _Table]]:
    """One asset type, or one asset, of several; the largest first."""
    keys: tuple[tuple[str, Callable[[Prediction], str]], ...] = (("asset type", lambda p: p.asset_type), ("asset", lambda p: p.asset_id))
    for name, key in keys:
        counts, usual = Counter(key(p) for p in table.now), Counter(key(p) for p in table.before)
        if len(counts) < 2:
            continue
        for value, n in counts.most_common(MOST_GROUPS):
            if n < LEAST_OF_A_GROUP or usual[value] < LEAST_REFERENCE:
                continue
            before = [i for i, p in enumerate(table.before) if key(p) == value]
            yield f"{name} {value}", table.part(before, [i for i, p in enumerate(table.now) if key(p) == value])


def _of(table: _Table) -> Iterator[InputFault]:
    for name, (before, now) in table.columns.items():
        yield from _marks_of(table, name, before, now)
        if before.is_numeric:
            yield from _numbers_of(table, name, before, now)
        elif (same := marks.constant(before, now)) and before.n:
            yield table.fault(Kind.CONSTANT, [name], f"{name} is always {_value(same[1])}", same[0])
        if at := marks.repeated(before, now, table.last_of_asset):
            words = f"{name} stands still: each asset repeats the value it had"
            yield table.fault(Kind.REPEATED, [name], words, at)
    yield from _offset_of(table)
    if len(table.columns) > MOST_MIXED_UP_OF_A_GROUP and table.of_group:
        return
    if found := mixed_up(*table.numbers()):
        held = ", ".join(f"{name} holds what {other} held" for name, other in found.holds.items())
        yield table.fault(Kind.MIXED_UP, list(found.holds), held, found.stretch)


def _marks_of(table: _Table, name: str, before: Column, now: Column) -> Iterator[InputFault]:
    if at := marks.marked(before, now, Held.MISSING):
        yield table.fault(Kind.MISSING, [name], f"{name} is missing", at, lambda i: now.held[i] == Held.MISSING)
    if at := marks.marked(before, now, Held.INFINITE):
        yield table.fault(Kind.INFINITE, [name], f"{name} is infinite", at, lambda i: now.held[i] == Held.INFINITE)
    if before.is_numeric and (at := marks.marked(before, now, Held.NUMBER_AS_TEXT)):
        yield table.fault(Kind.TEXT, [name], f"{name} holds numbers written as text", at, lambda i: now.held[i] == Held.NUMBER_AS_TEXT)
    elif before.is_numeric and (at := marks.marked(before, now, Held.OTHER)):
        yield table.fault(Kind.TEXT, [name], f"{name} holds text that is no number", at, lambda i: now.held[i] == Held.OTHER)


def _numbers_of(table: _Table, name: str, before: Column, now: Column) -> Iterator[InputFault]:
    import numpy as np

    if same := marks.constant(before, now):
        yield table.fault(Kind.CONSTANT, [name], f"{name} is always {_value(same[1])}", same[0])
        return
    if (not table.of_group or _may_have_moved(before, now)) and (found := converted(before.numbers, now.numbers)) is not None:
        yield table.fault(Kind.UNIT, [name], f"{name} is {found.unit.words}", found.stretch)
        return
    if at := marks.coarse(before, now):
        values = len(np.unique(now.numbers[at.start : at.end]))
        yield table.fault(Kind.COARSE, [name], f"{name} takes only {values} values where it took many: rounded or cut off", at)
        return
    if same := marks.filled_in(before, now):
        if marks.is_cut_off(before, now, same):
            yield table.fault(Kind.CUT_OFF, [name], f"{name} is cut off at {_value(same[1])}", same[0])
            return
        share = f"{name} is {_value(same[1])}, which it hardly ever was"
        code = now.values.index(same[1])
        yield table.fault(Kind.FILLED_IN, [name], share, same[0], lambda i: now.codes[i] == code)
        return
    if at := marks.far_outside(before, now):
        part = now.numbers[at.start : at.end]
        old = before.numbers[np.isfinite(before.numbers)]
        worst = part[np.nanargmax(np.abs(part - np.median(old)))]
        words = f"{name} is up to {worst:g}, far outside of the {old.min():g} to {old.max():g} it was"
        yield table.fault(Kind.OUTSIDE, [name], words, at, lambda i: not old.min() <= now.numbers[i] <= old.max())


def _may_have_moved(before: Column, now: Column) -> bool:
    """Whether the newest rows of a group, or all, lie otherwise than before: a look at every unit of every group takes seconds."""
    import numpy as np

    old = np.sort(before.numbers[np.isfinite(before.numbers)])
    for share in (1, 4, 16):
        new = now.numbers[-max(now.n // share, LEAST_ROWS) :]
        new = np.sort(new[np.isfinite(new)])
        if len(old) and len(new) and ks_distance(old, new) >= MOVED + len(new) ** -0.5:
            return True
    return False


def _offset_of(table: _Table) -> Iterator[InputFault]:
    """Of one feature while machines fail as often as before: where several moved, or outcomes did, the machines are at work differently."""
    numeric = {name: pair for name, pair in table.columns.items() if pair[0].is_numeric}
    found = {name: one for name, (before, now) in numeric.items() if (one := offset(before.numbers, now.numbers))}
    if len(found) != 1 or failures_changed(confusion_of(table.before), confusion_of(table.now))[0]:
        return
    for name, one in found.items():
        yield table.fault(Kind.OFFSET, [name], f"{name} is {one.unit.words}", one.stretch)


def _together(table: _Table, named: Collection[str]) -> Iterator[InputFault]:
    """Columns that say nothing wrong by themselves: those that no longer go with the others, or with the outcomes."""
    before, now = table.numbers(but=named)
    if found := apart(before, now):
        who = " or ".join(found.columns)
        words = f"{who} no longer goes with the other features, as if its values were of other rows or late,"
        yield table.fault(Kind.APART, found.columns, words, found.stretch)
    elif lost := meaning_lost(before, _outcomes(table.before), now, _outcomes(table.now)):
        at = Stretch(len(table.now) - lost.rows, len(table.now), 0.0)
        yield table.fault(Kind.OTHER_MEANING, list(lost.holds) or [lost.column], _meaning_words(lost), at)
    elif found := apart_from_last(before, table.last_of_asset[0], now, table.last_of_asset[1]):
        words = f"{found.columns[0]} no longer goes with what the same asset sent before, as if its values were of other rows,"
        yield table.fault(Kind.APART, found.columns, words, found.stretch)


def _meaning_words(lost: Meaning) -> str:
    if lost.holds:
        held = ", ".join(f"{name} goes with the outcomes as {other} did" for name, other in lost.holds.items())
        return f"{held}, as if columns were swapped,"
    if lost.turned:
        return f"{lost.column} goes with the outcomes the other way round and no other feature does, as if its sign had changed,"
    return f"{lost.column} alone no longer goes with the outcomes, as if its values were of other rows,"


def _outcomes(rows: Sequence[Prediction]) -> Floats:
    import numpy as np

    told: Floats = np.array([np.nan if p.outcome is None else float(p.outcome) for p in rows])
    return told


def _clock_faults(table: _Table) -> Iterator[InputFault]:
    import numpy as np

    by_id = sorted(table.now, key=lambda p: p.id)
    if clock.is_by_id(table.before) and (jump := clock.jump_of(by_id)):
        ids = frozenset(p.id for p in by_id[jump.at_row :])
        some = "some of the log's times are" if jump.back_and_forth else "the log's times are"
        words = f"{some} {_off(jump.hours)}, a whole number of hours: another time zone, local time instead of UTC,"
        if jump.hours % 1:
            words = f"{some} {_off(jump.hours)}: another time zone, local time instead of UTC,"
        yield InputFault(Kind.CLOCK, (), words, by_id[jump.at_row].at, None, ids, len(by_id))
        return

    def seconds(rows: Sequence[Prediction]) -> Floats:
        told: Floats = np.array([p.at.timestamp() % clock.DAY for p in rows])
        return told

    before, now = table.numbers()
    for name, (at, hours) in clock.clocks_off(before, seconds(table.before), now, seconds(table.now)).items():
        yield table.fault(Kind.CLOCK, [name], f"{name}, which tells the time of day, is {_off(hours)}: local time instead of UTC,", at)


def _off(hours: float) -> str:
    return f"{abs(hours):g} h {'ahead' if hours > 0 else 'behind'}"


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)[:60]
