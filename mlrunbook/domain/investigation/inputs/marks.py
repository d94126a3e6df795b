"""Values that tell by themselves: missing, infinite, text for a number, one value again and again, far outside of what was ever seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlrunbook.domain.investigation.inputs.columns import Column, Held
from mlrunbook.domain.investigation.inputs.stretch import Stretch, stretch_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

LEAST_RISE = 0.30  # within the stretch: a mark that a third of the rows carried before is a fault where most carry it now
TIMES_A_RUN = 3  # the longest run of one value there ever was
TIMES_A_VALUE = 3  # the most rows there ever were of one value
MOST_USUAL = 0.80  # a value that is nearly always there may well be there all the time
MOST_REPEATED = 0.3  # of the rows that say what their asset said last: such a column stands still by itself
LEAST_STILL = 0.7  # of the rows of the stretch: what is rounded repeats itself by chance
LEAST_OF_COARSE, LEAST_VALUES, TIMES_COARSER = 200, 20, 4
BEYOND_THE_CUT = 0.05  # of the reference
RARE = 0.002
LEAST_REPEATED = 30
OUTSIDE = 0.5  # of the reference's span, beyond its end; as `probing` has it
CREPT = 0.3  # rows just beyond the end, a row far beyond: a value that wanders off passes there


def marked(before: Column, now: Column, what: Held) -> Stretch | None:
    """Where far more rows than before hold it."""
    usual = before.share(what)
    seen = now.held == what
    found = _beyond(before.held == what, seen, usual, 0.5)
    if found is None:
        return None
    return found if seen[found.start : found.end].mean() - usual >= LEAST_RISE else None


def constant(before: Column, now: Column) -> tuple[Stretch, object] | None:
    """Where one value has come again and again, three times as often in a row as any ever did."""
    import numpy as np

    if not before.n or not now.n:
        return None
    longest = _longest_run(before.codes)
    start, end = _longest_stretch(now.codes)
    code = int(now.codes[start]) if end > start else -1
    if code < 0 or end - start < max(TIMES_A_RUN * longest, LEAST_REPEATED):
        return None
    usual = float(np.mean(before.codes == code))
    if usual > MOST_USUAL:
        return None
    found = stretch_of(now.codes == code, usual)
    return (found, now.values[code]) if found.is_enough else None


def filled_in(before: Column, now: Column) -> tuple[Stretch, object] | None:
    """Where one value that was hardly ever seen is in many rows: what somebody put where nothing was known (0, -999)."""
    import numpy as np

    there = now.codes[now.codes >= 0]
    if not len(there) or not before.n:
        return None
    known = before.codes[before.codes >= 0]
    usual = np.bincount(known, minlength=len(now.values)) if len(known) else np.zeros(len(now.values), int)
    counts = np.bincount(there, minlength=len(now.values))
    counts[usual > RARE * before.n] = 0
    code = int(counts.argmax())
    most = usual.max() if len(usual) else 0
    if counts[code] < max(LEAST_REPEATED, TIMES_A_VALUE * most * max(1.0, now.n / before.n)) or len(np.unique(known)) < LEAST_REPEATED:
        return None
    seen, rare = now.codes == code, usual[code] / before.n
    found = _beyond(before.codes == code, seen, rare, 0.3)
    return (found, now.values[code]) if found else None


def is_cut_off(before: Column, now: Column, filled: tuple[Stretch, object]) -> bool:
    """Whether the value is the end of all that comes since, and other values came beyond it before: then the rows it is not in are chosen
    by their value, and no measure of what the others would have been."""
    import numpy as np

    at, value = filled
    part, old = now.numbers[at.start : at.end], before.numbers
    part = part[np.isfinite(part)]
    if not isinstance(value, int | float) or not len(part):
        return False
    below, above = float((old < value).mean()), float((old > value).mean())
    return (value == part.min() and below > BEYOND_THE_CUT) or (value == part.max() and above > BEYOND_THE_CUT)


def places_of_last(keys: Sequence[str]) -> Ints:
    """
    >>> places_of_last(["a", "b", "a"]).tolist()
    [-1, -1, 0]
    """
    import numpy as np

    last: dict[str, int] = {}
    places = np.full(len(keys), -1, np.int64)
    for i, key in enumerate(keys):
        places[i] = last.get(key, -1)
        last[key] = i
    return places


def repeated(before: Column, now: Column, last: tuple[Ints, Ints]) -> Stretch | None:
    """Where assets say again what they said last, far more often than they ever did."""
    import numpy as np

    def again(column: Column, at: Ints) -> Bools:
        same: Bools = (at >= 0) & (column.codes >= 0) & (column.codes == column.codes[at])
        return same

    was, is_, known = again(before, last[0]), again(now, last[1]), last[0] >= 0
    if known.sum() < LEAST_REPEATED or len(np.unique(before.codes)) < LEAST_REPEATED:
        return None
    usual = float(was[known].mean())
    found = None if usual > MOST_REPEATED else _beyond(was[known], is_, usual, 0.6)
    if found is None or is_[found.start : found.end].mean() < LEAST_STILL:
        return None
    values, assets = len(np.unique(now.codes[found.start : found.end])), int((last[1] < 0).sum())
    return (
        found if values >= min(assets, len(np.unique(before.codes))) / 2 else None
    )  # fewer: each is of many assets, as rounding makes them


def coarse(before: Column, now: Column) -> Stretch | None:
    """Where a column takes a fraction of the different values that so many rows of it ever took: it was rounded, cut off or binned."""
    import numpy as np

    def different(values: Floats) -> int:
        return len(np.unique(values[np.isfinite(values)]))

    n = now.n
    for share in (1.0, 0.5, 0.25, 0.1):
        rows = int(n * share)
        if rows < LEAST_OF_COARSE or before.n < rows // 4:
            continue
        size = min(rows, before.n // 2)
        usual = min(different(before.numbers[at : at + size]) for at in range(0, before.n - size + 1, max(size // 2, 1)))
        part = now.numbers[n - rows :]
        if usual >= LEAST_VALUES and np.isfinite(part).mean() > 0.5 and different(part[-size:]) * TIMES_COARSER <= usual:
            return Stretch(n - rows, n, float(rows))
    return None


def far_outside(before: Column, now: Column) -> Stretch | None:
    """Where numbers are further out than half of all that was ever seen is wide, and did not wander there."""
    import numpy as np

    old = before.numbers[np.isfinite(before.numbers)]
    if len(old) < LEAST_REPEATED or old.min() == old.max():
        return None
    low, high = float(old.min()), float(old.max())
    margin = OUTSIDE * (high - low)
    least = max(low - margin, min(0.0, low)) if low >= 0 else low - margin
    values = np.where(np.isfinite(now.numbers), now.numbers, (low + high) / 2)
    far = (values > high + margin) | (values < least)
    near = ~far & ((values > high) | (values < low))
    crept = int(near.sum()) >= CREPT * int(far.sum())
    return None if crept else _beyond(np.zeros(before.n, bool), far, 0.0, 0.3)


def _beyond(before: Bools, now: Bools, usual: float, share: float) -> Stretch | None:
    """Where nearly all rows carry the mark, or `share` of them: whichever says more, if it says more than the reference ever did."""
    found, most = max(((stretch_of(now, usual, share=s), s) for s in (0.98, share)), key=lambda one: one[0].evidence)
    return found if found.is_beyond(stretch_of(before, usual, share=most)) else None


def _runs(codes: Ints) -> tuple[Ints, Ints]:
    import numpy as np

    edges = np.flatnonzero(np.diff(codes)) + 1
    starts, ends = np.concatenate([[0], edges]), np.concatenate([edges, [len(codes)]])
    known = codes[starts] >= 0
    return starts[known], ends[known]


def _longest_run(codes: Ints) -> int:
    starts, ends = _runs(codes)
    return int((ends - starts).max()) if len(starts) else 0


def _longest_stretch(codes: Ints) -> tuple[int, int]:
    starts, ends = _runs(codes)
    if not len(starts):
        return 0, 0
    longest = int((ends - starts).argmax())
    return int(starts[longest]), int(ends[longest])
