"""Folders and files as tables: which files a table is made of, newest first, and the DuckDB that may read them and nothing else."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlrunbook.domain.errors import NotFound, Refused

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY, THREADS = "256MB", 2
PARQUET, CSV = (".parquet", ".pq"), (".csv", ".csv.gz", ".csv.zst", ".tsv")
DATABASE = (".duckdb", ".db", ".ddb")
DELTA_LOG = "_delta_log"
_GLOB = frozenset("*?[")


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@dataclass(frozen=True)
class Place:
    """What the address names: a file of DuckDB's own (`database`), or a folder, with a pattern where it ends in one."""

    base: Path
    pattern: str | None = None
    database: Path | None = None

    @classmethod
    def of(cls, address: str) -> Place:
        """
        >>> Place.of("duckdb:///data/preds/*.parquet")
        Place(base=PosixPath('/data/preds'), pattern='*.parquet', database=None)
        """
        path = Path(address.removeprefix("duckdb://"))
        if path.suffix in DATABASE and not path.is_dir():
            return cls(path.parent, None, path)
        parts = path.parts
        first = next((i for i, part in enumerate(parts) if _GLOB & set(part)), None)
        if first is not None:
            return cls(Path(*parts[:first]), "/".join(parts[first:]))
        return cls(path.parent, path.name) if path.is_file() else cls(path)

    def tables(self) -> dict[str, Files]:
        """By name: each folder with data in it, and each file; with a pattern the one table that it makes."""
        if self.pattern is not None:
            files = Files.matching(self.base, self.pattern)
            return {self._name_of_pattern(): files} if files else {}
        if not self.base.is_dir():
            return {}
        if own := Files.directly_in(self.base):
            return {self.base.name: own}
        found = {}
        for one in sorted(self.base.iterdir()):
            if one.name.startswith(("_", ".")):
                continue
            if files := Files.within(one) if one.is_dir() else Files.single(one):
                found[one.name if one.is_dir() else one.name.partition(".")[0]] = files
        return found

    def table(self, name: str) -> Files | None:
        """Of that name, else what it matches below the folder: `preds/*.parquet`."""
        if found := self.tables().get(name):
            return found
        if ".." in Path(name).parts or Path(name).is_absolute():
            return None
        if _GLOB & set(name):
            return Files.matching(self.base, name)
        below = self.base / name
        return Files.within(below) if below.is_dir() else Files.single(below) if below.is_file() else None

    def _name_of_pattern(self) -> str:
        assert self.pattern is not None
        last = self.pattern.rsplit("/", 1)[-1]
        return self.base.name if _GLOB & set(self.pattern) else last.partition(".")[0]


@dataclass(frozen=True)
class Files:
    """`paths` are newest first by name: what is asked of a log is of its last columns."""

    kind: str
    paths: tuple[str, ...]

    @classmethod
    def of(cls, paths: list[Path]) -> Files | None:
        for kind, ends in (("parquet", PARQUET), ("csv", CSV)):
            if chosen := sorted((str(path) for path in paths if path.name.endswith(ends)), reverse=True):
                return cls(kind, tuple(chosen))
        return None

    @classmethod
    def matching(cls, base: Path, pattern: str) -> Files | None:
        return cls.of([path for path in base.glob(pattern) if path.is_file()])

    @classmethod
    def single(cls, file: Path) -> Files | None:
        return cls.of([file])

    @classmethod
    def directly_in(cls, folder: Path) -> Files | None:
        """A folder that is a table itself: data in it, or in folders by partition."""
        if (folder / DELTA_LOG).is_dir():
            return cls.within(folder)
        if any("=" in one.name for one in folder.iterdir() if one.is_dir()):
            return cls.within(folder)
        return None

    @classmethod
    def within(cls, folder: Path) -> Files | None:
        if (folder / DELTA_LOG).is_dir():
            return cls("parquet", _of_delta(folder))
        return cls.of([path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(("_", "."))])

    def scan(self, *, by_name: bool = False) -> str:
        """`by_name`: columns by their names in every file, which opens them all; else as the newest file has them."""
        listed = ", ".join(quoted(path) for path in self.paths)
        read = "read_parquet" if self.kind == "parquet" else "read_csv"
        more = ", union_by_name = true" if by_name else ""
        return f"{read}([{listed}], hive_partitioning = {'true' if self.is_hive else 'false'}{more})"

    @property
    def is_hive(self) -> bool:
        return all("=" in path for path in self.paths)


def _of_delta(folder: Path) -> tuple[str, ...]:
    """The files that the table is made of now; what was deleted or rewritten still lies beside them."""
    try:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError
    except ImportError as error:
        raise Refused(f'{folder} is a Delta table, and what reads one is not installed: pip install "deltalake>=1"') from error
    try:
        table = DeltaTable(str(folder))
        features = table.protocol().reader_features or []
        if {"deletionVectors", "columnMapping"} & set(features):
            raise Refused(f"{folder} is a Delta table with {', '.join(features)}, which is not read here: name a view of your warehouse")
        return tuple(sorted(table.file_uris(), reverse=True))
    except DeltaError as error:
        raise Refused(f"{folder} cannot be read as a Delta table ({str(error)[:200]})") from error


@contextmanager
def opened(place: Place, connection: str) -> Iterator[DuckDBPyConnection]:
    """A DuckDB for one look: it reads this place alone, writes nothing, and lets go of the file afterwards, so that others may write."""
    import duckdb

    spill = tempfile.mkdtemp(prefix="mlrunbook-look-")
    config: dict[str, Any] = {"memory_limit": MEMORY, "threads": THREADS, "temp_directory": spill, "autoinstall_known_extensions": "false"}
    if place.database is not None and not place.database.is_file():
        raise NotFound(f"{connection}: there is no file {place.database}; correct the address")
    if place.database is None and not place.base.is_dir():
        raise NotFound(f"{connection}: there is no folder {place.base}; correct the address")
    try:
        db = duckdb.connect(str(place.database or ":memory:"), read_only=place.database is not None, config=config)
        try:
            db.execute("SET enable_progress_bar = false")
            if place.database is None:
                db.execute(f"SET allowed_directories = [{quoted(str(place.base.resolve()))}, {quoted(str(place.base))}]")
            db.execute("SET enable_external_access = false")
            yield db
        finally:
            db.close()
    finally:
        shutil.rmtree(spill, ignore_errors=True)
