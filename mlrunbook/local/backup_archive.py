"""The file that `mlrunbook backup` writes: a tar with `backup.json` first and `SHA256SUMS` last.

Members are read in order and checked on the way. Nothing is taken from a file that is not ours, is of a newer format, is cut short or
was changed. Only plain files with a path below the target are accepted, whoever wrote the tar.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any

from mlrunbook.domain.errors import Invalid, Refused

FORMAT = 1
HEAD, SUMS = "backup.json", "SHA256SUMS"
CHUNK = 1 << 20


@dataclass(frozen=True)
class Head:
    """What the backup is of: the release and schema that made it, PostgreSQL's major version, and when."""

    format: int
    release: str
    schema_revision: str
    postgresql: int
    made_at: datetime

    @classmethod
    def read(cls, content: bytes, where: str) -> Head:
        try:
            body = json.loads(content)
            if body["format"] > FORMAT:
                raise Refused(f"{where} was made by mlrunbook {body.get('release')} in a newer format: install that release or a newer one")
            return cls(**{**body, "made_at": datetime.fromisoformat(body["made_at"])})
        except (ValueError, TypeError, KeyError) as error:
            raise Invalid(f"{where} is no backup of mlrunbook: its {HEAD} cannot be read") from error

    def as_bytes(self) -> bytes:
        return json.dumps(asdict(self) | {"made_at": self.made_at.isoformat()}, indent=2).encode() + b"\n"


class Writer:
    """Adds files; `close()` writes the sums."""

    def __init__(self, out: IO[bytes], head: Head) -> None:
        self._tar = tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self._sums: dict[str, str] = {}
        self._add_bytes(HEAD, head.as_bytes())

    def add(self, name: str, path: Path) -> None:
        """The file as it is now. FileNotFoundError when it has gone."""
        with open(path, "rb") as content:
            stat = os.fstat(content.fileno())
            self._add(name, content, stat.st_size, mode=stat.st_mode & 0o777, mtime=stat.st_mtime)

    def close(self) -> None:
        self._add_bytes(SUMS, "".join(f"{digest}  {name}\n" for name, digest in self._sums.items()).encode())
        self._tar.close()

    def _add_bytes(self, name: str, content: bytes) -> None:
        self._add(name, io.BytesIO(content), len(content), mode=0o600, mtime=0)

    def _add(self, name: str, content: IO[bytes], size: int, *, mode: int, mtime: float) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, mode, mtime
        hashed = _Hashed(content)
        self._tar.addfile(info, hashed)
        self._sums[name] = hashed.digest


class _Hashed:
    """Reads on, and knows the SHA-256 of what was read."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source, self._sum = source, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        got = self._source.read(size)
        self._sum.update(got)
        return got

    @property
    def digest(self) -> str:
        return self._sum.hexdigest()


@contextmanager
def opened(archive: Path) -> Iterator[tuple[Head, Iterator[tuple[tarfile.TarInfo, _Hashed]]]]:
    """The head, and the members after it; each is to be read whole before the next. Invalid when the file is none of ours.

    What was read is only to be used once the members have come to their end: then the sums fit.
    """
    try:
        with tarfile.open(archive, "r:") as tar:
            first = tar.next()
            if first is None or first.name != HEAD:
                raise Invalid(f"{archive} is no backup of mlrunbook: it does not begin with {HEAD}")
            content = _content(tar, first).read()
            yield Head.read(content, str(archive)), _members(archive, tar, {HEAD: hashlib.sha256(content).hexdigest()})
    except (tarfile.TarError, EOFError) as error:
        raise Invalid(f"{archive} is no backup of mlrunbook, or it is damaged ({error}): take another copy") from error


def extract(archive: Path, target: Path) -> Head:
    """Write all of it below `target`, then check the sums."""
    with opened(archive) as (head, members):
        for info, content in members:
            path = target / _safe(archive, info)
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, info.mode & 0o777), "wb") as out:
                while chunk := content.read(CHUNK):
                    out.write(chunk)
            os.utime(path, (info.mtime, info.mtime))
    return head


def check(archive: Path) -> Head:
    """Read all of it, and keep nothing."""
    with opened(archive) as (head, members):
        for _, content in members:
            while content.read(CHUNK):
                pass
    return head


def _members(archive: Path, tar: tarfile.TarFile, sums: dict[str, str]) -> Iterator[tuple[tarfile.TarInfo, _Hashed]]:
    stated: dict[str, str] | None = None
    while (info := tar.next()) is not None:
        hashed = _content(tar, info)
        if info.name == SUMS:
            stated = {name: digest for digest, _, name in (line.partition("  ") for line in hashed.read().decode().splitlines())}
            break
        yield info, hashed
        if sums.setdefault(info.name, hashed.digest) != hashed.digest:
            raise Invalid(f"{archive} holds {info.name} twice: take another copy")
    if stated is None:
        raise Invalid(f"{archive} is cut short: its end is missing; take another copy")
    if wrong := sorted(name for name in stated.keys() | sums.keys() if stated.get(name) != sums.get(name)):
        raise Invalid(f"{archive} is damaged: {wrong[0]} is not what was backed up; take another copy")


def _content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> _Hashed:
    content: Any = tar.extractfile(info) if info.isreg() else None
    if content is None:
        raise Invalid(f"this is no backup of mlrunbook: {info.name} in it is no plain file")
    return _Hashed(content)


def _safe(archive: Path, info: tarfile.TarInfo) -> PurePosixPath:
    path = PurePosixPath(info.name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise Invalid(f"{archive} is no backup of mlrunbook: {info.name!r} leads out of the folder")
    return path
