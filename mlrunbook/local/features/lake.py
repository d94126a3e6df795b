"""Readings as Parquet files: landed whole or not at all, merged when they become many, under the eyes of concurrent readers.

The columns are `asset_id`, the raw features, `event_timestamp` and `created`, the last two timestamp[us] in UTC without a zone, which
Feast takes for UTC: DuckDB cannot read nanoseconds, and with a zone its filter compares in the zone of the process and skips nothing
(3 million rows: a materialisation of 0.5 s instead of 0.25).

A merged file names the files it stands for in its metadata; they go a minute later, when whoever had listed them has read them. Until
then a row is there twice, which no reader of Feast can tell: it takes the latest row of an asset.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mlrunbook.domain.communication.durations import utc
from mlrunbook.domain.errors import Invalid
from mlrunbook.local.platform.columns import ASSET_TYPE, NUMERIC

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

MERGE_FROM_FILES = 200
MERGED_ROWS = 500_000  # a merged file that has grown to this is left alone
GRACE_S = 60.0
STANDS_FOR = b"mlrunbook.stands_for"
_numbers = itertools.count()


def schema() -> pa.Schema:
    import pyarrow as pa

    instant = pa.timestamp("us")
    columns = {"asset_id": pa.string(), ASSET_TYPE: pa.string(), **dict.fromkeys(NUMERIC, pa.float64())}
    return pa.schema([*columns.items(), ("event_timestamp", instant), ("created", instant)])


def land(folder: Path, frame: pd.DataFrame, at: datetime | None = None) -> Path:
    """Write `frame` (asset_id and the raw features; others are left out) as one file and return it.

    The frame's own `event_timestamp` and `created` count where it has them, else `at` and now (aware). Empty frames are Invalid.
    """
    import pyarrow as pa

    if frame.empty:
        raise Invalid("there is no reading to land", field="frame")
    now = datetime.now(UTC)
    given = {"event_timestamp": [at or now] * len(frame), "created": [now] * len(frame)} | {name: frame[name] for name in frame}
    wanted = schema()
    columns = [pa.array(given[field.name], type=field.type, from_pandas=True, safe=False) for field in wanted]
    return _write(folder, pa.table(columns, schema=wanted), f"readings-{now:%Y%m%dT%H%M%S.%f}-{os.getpid()}-{next(_numbers)}")


def _write(folder: Path, table: pa.Table, stem: str) -> Path:
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    fresh, final = folder / f"{stem}.new", folder / f"{stem}.parquet"
    pq.write_table(table, fresh)
    fresh.replace(final)
    return final


@dataclass(frozen=True)
class Footer:
    """What a file says of itself: event times of its oldest and newest row (None: empty), rows, and the names it stands for."""

    oldest_at: datetime | None
    newest_at: datetime | None
    rows: int
    stands_for: tuple[str, ...] = ()


@dataclass(frozen=True)
class Look:
    """`newest_at`: event time of the newest row of all; `fresh_oldest_at`: of the oldest row in files that the last look did not see.

    `files` identifies what was there. None where there is no row.
    """

    newest_at: datetime | None
    fresh_oldest_at: datetime | None
    files: frozenset[tuple[str, int, int]]


class Watch:
    """Looks at a folder again and again; each file's footer is read once, so that a look costs a listing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._footers: dict[tuple[str, int, int], Footer] = {}

    def look(self) -> Look:
        """Invalid, naming the file, when one is not Parquet or lacks the event time; an absent folder is an empty one."""
        present = frozenset(_listed(self._folder))
        fresh = present - self._footers.keys()
        read = {key: footer for key in fresh if (footer := read_footer(self._folder / key[0])) is not None}
        self._footers = {key: footer for key, footer in self._footers.items() if key in present} | read
        newest = [footer.newest_at for footer in self._footers.values() if footer.newest_at]
        oldest = [footer.oldest_at for footer in read.values() if footer.oldest_at and not footer.stands_for]
        return Look(max(newest, default=None), min(oldest, default=None), frozenset(self._footers))


def _listed(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and change time of every file that Feast's pattern matches."""
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".parquet"):
                with contextlib.suppress(FileNotFoundError):
                    stat = entry.stat()
                    found.append((entry.name, stat.st_size, stat.st_mtime_ns))
    return found


def read_footer(file: Path) -> Footer | None:
    """None when the file has gone meanwhile; Invalid when it cannot be used."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(file)
        index = metadata.schema.to_arrow_schema().names.index("event_timestamp")
        seen = [metadata.row_group(i).column(index).statistics for i in range(metadata.num_row_groups)]
        extremes = [(utc(one.min), utc(one.max)) for one in seen if one is not None and one.has_min_max]
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise Invalid(f"{file} is no usable Parquet file of readings ({reason}); restore it or move it away", field="source") from error
    covered = (metadata.metadata or {}).get(STANDS_FOR)
    return Footer(
        oldest_at=min((low for low, _ in extremes), default=None),
        newest_at=max((high for _, high in extremes), default=None),
        rows=metadata.num_rows,
        stands_for=tuple(json.loads(covered)) if covered else (),
    )


def compact(folder: Path, *, from_files: int = MERGE_FROM_FILES, grace_s: float = GRACE_S) -> None:
    """Merge the small files once there are `from_files`, and remove those that a merged file has stood for longer than `grace_s`.

    One process at a time; it may be killed anywhere and run again. Files that cannot be read are left alone.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    footers: dict[str, Footer] = {}
    merged_at: dict[str, float] = {}
    for name, _, changed_ns in _listed(folder):
        with contextlib.suppress(Invalid):
            if footer := read_footer(folder / name):
                footers[name], merged_at[name] = footer, changed_ns / 1e9
    covered: set[str] = set()
    for name, footer in footers.items():
        covered.update(footer.stands_for)
        if footer.stands_for and time.time() - merged_at[name] > grace_s:
            for old in footer.stands_for:
                (folder / old).unlink(missing_ok=True)
    small = sorted(name for name, footer in footers.items() if name not in covered and footer.rows < MERGED_ROWS)
    if len(small) < from_files:
        return
    parts = [pq.read_table(folder / name, schema=schema()) for name in small]
    table = pa.concat_tables(parts).sort_by("event_timestamp")
    table = table.replace_schema_metadata({STANDS_FOR: json.dumps(small)})
    _write(folder, table, f"merged-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}")
