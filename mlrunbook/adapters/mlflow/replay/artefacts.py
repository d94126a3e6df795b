"""The artefact of a version, fetched into a folder: over MLflow's own proxy, or from a folder that policy opens."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote, urlsplit

from mlrunbook.adapters.mlflow.client import MlflowClient
from mlrunbook.domain.errors import Refused

PROXY = "mlflow-artifacts"
MOST_FILES, MOST_DEPTH = 2_000, 12


@dataclass(frozen=True)
class Fetched:
    """`digest`: sha256 over the names and the contents of all its files."""

    size_bytes: int
    digest: str


def fetch(client: MlflowClient, name: str, version: str, into: Path, *, most_bytes: int, local: Path | None) -> Fetched:
    """Refused where it is kept where nobody may read it from here, or is too large."""
    params = {"name": name, "version": version}
    uri = client.read("/model-versions/get-download-uri", lambda b: b.text("artifact_uri"), params)
    split = urlsplit(uri)
    if split.scheme == PROXY:
        _download(client, split.path.strip("/"), into, most_bytes)
    elif split.scheme in ("", "file"):
        _copy(Path(unquote(split.path)), local, into, most_bytes)
    else:
        raise Refused(
            f"its artefact is in {split.scheme}://, which is read with keys of its own: start the MLflow server with --serve-artifacts, so "
            "that it hands artefacts out itself"
        )
    if not (into / "MLmodel").is_file():
        raise Refused("its artefact holds no MLmodel file: log it with MLflow's log_model")
    return _digest(into)


def _download(client: MlflowClient, root: str, into: Path, most_bytes: int) -> None:
    left = most_bytes
    for path in _listed(client, PurePosixPath(root), PurePosixPath(), [MOST_FILES], 0):
        target = into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        left -= client.download(f"/{PROXY}/artifacts/{quote(f'{root}/{path}')}", target, left)


def _listed(client: MlflowClient, root: PurePosixPath, under: PurePosixPath, left: list[int], depth: int) -> Iterator[PurePosixPath]:
    """The files below `under`, as paths below `root`."""
    if depth > MOST_DEPTH:
        raise Refused(f"its artefact has more than {MOST_DEPTH} folders in each other")
    for path, is_folder in client.artifacts(f"/{PROXY}/artifacts", str(root / under)):
        left[0] -= 1
        if left[0] < 0:
            raise Refused(f"its artefact has more than {MOST_FILES} files")
        name = PurePosixPath(path).name  # MLflow's answer is a name from outside: only its last part counts
        if name in ("", ".", ".."):
            raise Refused(f"its artefact has a file called {path[:100]!r}")
        if is_folder:
            yield from _listed(client, root, under / name, left, depth + 1)
        else:
            yield under / name


def _copy(source: Path, local: Path | None, into: Path, most_bytes: int) -> None:
    if local is None:
        raise Refused(
            f"its artefact is the folder {source}: name the folder that artefacts lie in under replay.artifacts, if it is here too"
        )
    real = source.resolve()
    if not real.is_relative_to(local.resolve()) or not real.is_dir():
        raise Refused(f"its artefact {source} is no folder below {local} (replay.artifacts)")
    files = [path for path in real.rglob("*") if path.is_file() and not path.is_symlink()]
    if len(files) > MOST_FILES or sum(path.stat().st_size for path in files) > most_bytes:
        raise Refused(f"its artefact is larger than replay.most_size_mb ({most_bytes / 1e6:.0f}) or has more than {MOST_FILES} files")
    for path in files:
        target = into / path.relative_to(real)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def _digest(folder: Path) -> Fetched:
    whole, size = hashlib.sha256(), 0
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        with path.open("rb") as file:
            inner = hashlib.file_digest(file, "sha256").hexdigest()
        size += path.stat().st_size
        whole.update(f"{path.relative_to(folder)}\0{inner}\n".encode())
    return Fetched(size, whole.hexdigest())
