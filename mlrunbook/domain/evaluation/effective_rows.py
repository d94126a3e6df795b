"""How many rows of a column count as one, because rows near each other in time, or about one asset, resemble each other.

Tests of distributions take rows as independent. n rows that resemble each other say as much as n / design effect (Kish 1965). It is
measured on classes: the share of rows in each tenth of the values (or in each category), not on the values, where a few spikes would hide
all memory. In blocks of independent rows such a share varies by p(1-p)/length; how much more it varies is the design effect at that length
(batch means: Schmeiser 1982; Flegal and Jones 2010). A memory shows only in blocks that are longer than it, so the largest over several
lengths counts, and needs eight blocks of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

Alike = Callable[[Any, Any], float]  # how much two aligned samples of one column resemble each other: 0 by chance, 1 equal
CLASSES = 10  # tenths of the values; as many of the most frequent categories
LEAST_BLOCKS = 8
COUNTS = 0.9  # of the steps from row to row of an asset go the same way: a counter
BEYOND_CHANCE = 2.0  # standard errors: of independent rows the longest blocks would else seem to remember
DAYS = (1, 2, 7, 14, 28)  # lengths of blocks, where there are times: a daily and a weekly cycle cancel out in whole ones
MOST_BLOCKS = 1 << 16  # of rows without times: the shortest blocks of a longer column hold several rows
DAY_S = 86_400
NEARLY_WHOLE = 0.05  # of a day


def tenths(ordered: Floats, values: Floats) -> Ints:
    """Of each value, the tenth of `ordered` (sorted) that it is in."""
    import numpy as np

    edges = ordered[np.arange(1, CLASSES) * len(ordered) // CLASSES]
    return np.searchsorted(edges, values, side="right")


def frequent(codes: Ints, counts: Ints) -> Ints:
    """Of each code, its place among the most frequent ones; all the others share the last."""
    import numpy as np

    place = np.full(len(counts), CLASSES - 1)
    most = np.argsort(-counts, kind="stable")[: CLASSES - 1]
    place[most] = np.arange(len(most))
    return place[codes]


def rows_as_one(classes: Ints, seconds: Floats | None) -> float:
    """How many neighbouring rows count as one, at least 1. `classes`: of each row in time order, 0 to 9; `seconds`: its time, None for
    rows without one."""
    import numpy as np

    shares = np.bincount(classes, minlength=CLASSES) / len(classes)
    if np.count_nonzero(shares) < 2:
        return 1.0
    found = [1.0, *(_design_effect(counts, shares) for counts in _blocks(classes, seconds))]
    return max(found)


def odd_hours(seconds: Floats | None) -> float:
    """The share of the rows' time, sorted, that makes no whole day: all of half a day, a third of a day and a half. What comes again every
    day cancels out in the rest. 0 for rows without times."""
    days = 0.0 if seconds is None or len(seconds) < 2 else float(seconds[-1] - seconds[0]) / DAY_S
    left = days - round(days)
    return 0.0 if not days or (days >= 0.5 and abs(left) < NEARLY_WHOLE) else days % 1 / days


def _blocks(classes: Ints, seconds: Floats | None) -> Iterator[Ints]:
    """Rows by block and class, for each length of a block that leaves enough of them."""
    import numpy as np

    if seconds is not None and (days := (seconds - seconds[0]) // DAY_S)[-1] + 1 >= LEAST_BLOCKS:
        for length in DAYS:
            block = (days // length).astype(np.int64)
            if np.count_nonzero(np.bincount(block)) >= LEAST_BLOCKS:
                yield _counted(block, classes)
        return
    shortest = max(1, -(-len(classes) // MOST_BLOCKS))
    counts = _counted(np.arange(len(classes)) // shortest, classes)[: len(classes) // shortest]
    if len(counts) >= LEAST_BLOCKS:
        yield counts[: len(counts) // LEAST_BLOCKS * LEAST_BLOCKS].reshape(LEAST_BLOCKS, -1, CLASSES).sum(axis=1)
    while len(counts) >= LEAST_BLOCKS:
        yield counts
        counts = counts[: len(counts) // 2 * 2].reshape(-1, 2, CLASSES).sum(axis=1)


def _counted(block: Ints, classes: Ints) -> Ints:
    import numpy as np

    counts: Ints = np.bincount(block * CLASSES + classes, minlength=(int(block[-1]) + 1) * CLASSES).reshape(-1, CLASSES)
    held: Ints = counts[counts.sum(axis=1) > 0]
    return held


def _design_effect(counts: Ints, shares: Floats) -> float:
    """Of these blocks; 1 where chance explains it. Widened by b/(b - 3) for what b blocks do not know."""
    import numpy as np

    sizes, b = counts.sum(axis=1, keepdims=True), len(counts)
    reached, share = np.cumsum(counts, axis=1)[:, :-1], np.cumsum(shares)[:-1]
    inside = (share > 0) & (share < 1 - 1e-12)
    if not inside.any():
        return 1.0
    off = (reached - sizes * share)[:, inside]
    effects = (off**2).sum(axis=0) / (sizes.sum() * (share * (1 - share))[inside]) * b / (b - 1)
    effect = float(effects.mean())
    return effect * b / (b - 3) if effect > 1 + BEYOND_CHANCE * (2 / (b - 1)) ** 0.5 else 1.0


def cycles_seen(ranks: Any, mask: Any, pairs: tuple[Ints, Ints]) -> float:
    """How often a counter (wear, hours since a service) was reset in the rows of one asset, on average; infinite where the column is none.

    Assets count up side by side, and what they were reset by comes to many of them at once: while each has not been through a few cycles,
    that the fleet stands elsewhere in them says nothing.
    """
    import numpy as np

    both = mask[pairs[0]] & mask[pairs[1]]
    steps = ranks[pairs[0]][both] - ranks[pairs[1]][both]  # of the later row from the earlier one
    moved, up = np.count_nonzero(steps), np.count_nonzero(steps > 0)
    if moved < LEAST_BLOCKS or moved < len(steps) / 2 or max(up, moved - up) < COUNTS * moved:
        return inf
    of_asset = np.concatenate([[True], pairs[1][1:] != pairs[0][:-1]])  # where the pairs of the next asset begin
    return float(min(up, moved - up) / np.count_nonzero(of_asset))


def kept_by_assets(classes: Ints, assets: Ints) -> float:
    """How much rows of one asset resemble each other for good, however far apart (intraclass correlation), 0..1: a machine that is larger
    than others stays so, under all the noise. 0 for fewer assets than can show it."""
    import numpy as np

    sizes = np.bincount(assets)
    mean_size = float((sizes.astype(float) ** 2).sum() / len(assets))
    if np.count_nonzero(sizes) < LEAST_BLOCKS or mean_size <= 1:
        return 0.0
    counts = np.bincount(assets * CLASSES + classes, minlength=len(sizes) * CLASSES).reshape(-1, CLASSES)
    effect = _design_effect(counts[sizes > 0], np.bincount(classes, minlength=CLASSES) / len(classes))
    return min((effect - 1) / (mean_size - 1), 1.0)


def likeness(ranks: Any, mask: Any, pairs: tuple[Ints, Ints], alike: Alike) -> float:
    """Of rows of the same asset, each with the one before it, 0..1."""
    both = mask[pairs[0]] & mask[pairs[1]]
    one, other = ranks[pairs[0]][both], ranks[pairs[1]][both]
    return min(max(alike(one, other), 0.0), 0.9999) if len(one) else 0.0
