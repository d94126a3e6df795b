"""A file of predictions as DuckDB reads it: Parquet, CSV, or a folder of Parquet files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlrunbook.domain.errors import Invalid

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

TYPES_FROM = 20_480  # rows of a CSV, to tell its types
LONGEST_LINE = 1 << 20
PACKED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")  # gzip, Zstandard
MOST_COLUMNS = 2000  # of a CSV, whose types take a minute to tell beyond
Stamp = tuple[int, int, int] | None  # of a file: node, size, time of its last change


@dataclass(frozen=True)
class Source:
    """`scan` is the SQL that reads it all, a CSV as text; `types` the columns with the types they (seem to) have."""

    path: Path
    scan: str
    types: Mapping[str, str]
    is_text: bool
    stamps: tuple[tuple[Path, Stamp], ...] = ()

    @property
    def has_changed(self) -> bool:
        """Since it was opened."""
        return any(_stamp(file) != stamp for file, stamp in self.stamps)

    def only(self, name: str, value: str) -> Source:
        """The rows with this value alone."""
        return replace(self, scan=f"(SELECT * FROM {self.scan} WHERE CAST({column(name)} AS VARCHAR) = {quoted(value)})")


def open_source(db: DuckDBPyConnection, path: Path) -> Source:
    """Invalid where there is nothing that can be read, with what to do."""
    files = _files(path)
    stamps = tuple((file, _stamp(file)) for file in files)
    kind = _kind(files[0])
    names = ", ".join(quoted(str(file)) for file in files)
    if kind == "parquet":
        scan = typed = f"read_parquet([{names}], union_by_name = true)"
    else:
        scan = f"read_csv([{names}], header = true, all_varchar = true, store_rejects = true, max_line_size = {LONGEST_LINE})"
        typed = f"read_csv([{names}], header = true, sample_size = {TYPES_FROM}, ignore_errors = true)"
    import duckdb

    try:
        types = _types(db, typed)
        if kind == "csv" and len(types) > 1:  # the same names as they are scanned
            commas = {} if "DOUBLE" in types.values() else _types(db, f"{typed[:-1]}, decimal_separator = ',')")
            types = {name: types.get(name, "VARCHAR") for name in _types(db, scan)}
            if with_comma := [name for name, type_ in types.items() if type_ == "VARCHAR" and commas.get(name) == "DOUBLE"]:
                points = ", ".join(f"replace({column(name)}, ',', '.') AS {column(name)}" for name in with_comma)
                scan, types = f"(SELECT * REPLACE ({points}) FROM {scan})", types | dict.fromkeys(with_comma, "DOUBLE")
    except duckdb.Error as error:
        raise _unreadable(path, error) from error
    if len(types) < 2:
        raise Invalid(f"{path} has one column, {next(iter(types), '')[:60]!r}: is it a CSV with a header line, or a Parquet file?")
    return Source(path, scan, types, kind == "csv", stamps)


def _stamp(file: Path) -> Stamp:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _types(db: DuckDBPyConnection, scan: str) -> dict[str, str]:
    return {str(name): str(type_) for name, type_, *_ in db.execute(f"DESCRIBE SELECT * FROM {scan}").fetchall()}


def _unreadable(path: Path, error: Exception) -> Invalid:
    words = " ".join(str(error).split())
    if "nicode" in words or "utf-8" in words.lower() or "encod" in words.lower():
        return Invalid(f"{path} is not UTF-8 text: save it as UTF-8 (`iconv -f latin1 -t utf-8`), or as Parquet")
    if "max_line_size" in words or "aximum line size" in words:
        return Invalid(f"{path} has a line of more than 1 MiB: leave its long texts out; nothing here reads them")
    return Invalid(f"{path} cannot be read as CSV or Parquet: {words[:200]}")


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        if found := sorted(path.rglob("*.parquet")):
            return found
        raise Invalid(f"{path} is a folder without a Parquet file: name a CSV or Parquet file")
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise Invalid(
            f"there is no file {path}: name the log of predictions; `mlrunbook backtest --sample sample.csv` writes one"
        ) from error
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror or error}") from error
    if size == 0:
        raise Invalid(f"{path} is empty: export the predictions again")
    return [path]


def _kind(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            head = opened.read(65_536)
    except OSError as error:
        raise Invalid(f"cannot read {file}: {error.strerror or error}") from error
    if head.startswith(b"PAR1"):
        return "parquet"
    if file.suffix == ".parquet":
        raise Invalid(f"{file} is no Parquet file, whatever it is called: export it again, or rename a CSV to .csv")
    if head.startswith(PACKED):
        if file.suffix not in (".gz", ".zst"):
            raise Invalid(f"{file} is compressed: name it .csv.gz or .csv.zst")
        return "csv"
    _check_text(file, head)
    return "csv"


def _check_text(file: Path, head: bytes) -> None:
    if head.startswith(b"PK\x03\x04"):
        raise Invalid(f"{file} is a ZIP archive or an Excel workbook: unpack it, or save the sheet as CSV in UTF-8")
    if b"\0" in head:
        raise Invalid(f"{file} is neither CSV nor Parquet: export the log as one of them, in UTF-8")
    header = head.split(b"\n", 1)[0]
    if (wide := max(header.count(sign) for sign in (b",", b";", b"\t")) + 1) > MOST_COLUMNS:
        raise Invalid(
            f"{file} has {wide:,} columns or more, at most {MOST_COLUMNS:,} of a CSV are read: keep fewer, or write it as Parquet"
        )
    try:
        head[: len(head) - 4 if len(head) == 65_536 else None].decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(header):
            raise _unreadable(file, error) from error


def quoted(text: str) -> str:
    """As an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def column(name: str) -> str:
    """As an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
