"""What other versions would have made of the requests in the log: the evidence before a rollback or a promotion."""

from __future__ import annotations

import hashlib
import logging
import statistics
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine

from mlrunbook.base.db import transaction
from mlrunbook.domain.errors import NotFound, Refused, RunbookError
from mlrunbook.domain.observed import Prediction, Replayed, VersionReplay
from mlrunbook.local.platform import artefact_archive, artefacts, change_log, columns, predictions, registry

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
SINGLE_ROWS = 30  # scored one by one: their median is the latency of one row
MOST_CACHED = 16
# What a computed column is computed from; every other column of a model is a raw one itself.
COMPUTED_FROM: dict[str, tuple[str, ...]] = {
    "type_code": (columns.ASSET_TYPE,),
    "temperature_difference_k": ("process_temperature_k", "air_temperature_k"),
    "power_w": ("torque_nm", "rotational_speed_rpm"),
    "strain_min_nm": ("torque_nm", "tool_wear_min"),
}


class Models:
    """Checked artefacts, kept by the sha256 of what lies on the disk, so that a file changed since is read and checked anew."""

    def __init__(self, folder: Path, most: int = MOST_CACHED) -> None:
        self._folder, self._most = folder, most
        self._kept: OrderedDict[tuple[str, str], artefacts.LoadedModel] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, registered: registry.Version) -> artefacts.LoadedModel:
        """Raises as `registry.verified` does."""
        with self._lock:
            key = (registered.sha256, self._on_disk(registered))
            if key not in self._kept:
                self._kept[key] = registry.verified(self._folder, registered)
            self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
            return self._kept[key]

    def size_bytes(self, registered: registry.Version) -> int | None:
        try:
            return (self._path(registered) / artefacts.ARTEFACT).stat().st_size
        except OSError:
            return None

    def _path(self, registered: registry.Version) -> Path:
        return self._folder / registered.model / registered.version

    def _on_disk(self, registered: registry.Version) -> str:
        digest = hashlib.sha256()
        for name in (artefacts.MANIFEST, artefacts.ARTEFACT):
            try:
                digest.update(artefact_archive.read_file(self._path(registered) / name, artefact_archive.MOST_BYTES))
            except (OSError, Refused):
                return ""  # `verified` says what is wrong with it
        return digest.hexdigest()


def replay(
    engine: Engine,
    models: Models,
    model: str,
    versions: Sequence[str],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    limit: int = 4000,
) -> Replayed:
    """The newest `limit` labelled requests of [since, until), oldest first, scored by each of `versions`.

    A version that cannot score them says why in `problem`. NotFound for an unknown model.
    """
    found: dict[str, registry.Version | NotFound] = {}
    with transaction(engine) as conn:
        change_log.find(conn, model)
        rows = predictions.recent(conn, model=model, limit=limit, since=since, until=until, labelled_only=True)[::-1]
        for version in dict.fromkeys(versions):
            try:
                found[version] = registry.get(conn, model, version)
            except NotFound as error:
                found[version] = error
    lacking = [name for name in columns.RAW if any(name not in r.features for r in rows)]
    frame = _frame(rows)
    scored = tuple(_scored(models, version, registered, rows, lacking, frame) for version, registered in found.items())
    return Replayed(tuple(rows), scored)


def _frame(rows: Sequence[Prediction]) -> pd.DataFrame | None:
    """None when the log holds values that are no numbers: then nobody can score them."""
    blank = dict.fromkeys(columns.RAW)
    try:
        return columns.as_frame([blank | dict(r.features) for r in rows])
    except (TypeError, ValueError) as error:
        log.warning("logged requests cannot be replayed: %s", error)
        return None


def _scored(
    models: Models,
    version: str,
    registered: registry.Version | NotFound,
    rows: Sequence[Prediction],
    lacking: Sequence[str],
    frame: pd.DataFrame | None,
) -> VersionReplay:
    if isinstance(registered, NotFound):
        return VersionReplay(version, (), str(registered))
    size_bytes = models.size_bytes(registered)

    def impossible(problem: str) -> VersionReplay:
        return VersionReplay(version, (), problem, size_bytes)

    try:
        model = models.load(registered)
    except RunbookError as error:
        return impossible(str(error))
    needed = {raw for name in model.manifest.features for raw in COMPUTED_FROM.get(name, (name,))}
    if absent := [name for name in lacking if name in needed]:
        return impossible(f"{version} needs {', '.join(absent)}, which logged requests do not carry: choose a version that does without")
    if frame is None:
        return impossible("logged requests hold features that are no numbers: choose another time range")
    try:
        scores = tuple(model.score(frame).tolist()) if len(frame) else ()
        latency_ms = _latency_ms(model, rows)
    except artefacts.BadScores as error:
        return impossible(str(error))
    except Exception as error:  # whatever a wrong model raises is its problem, not the caller's
        log.warning("%s could not score the logged requests", version, exc_info=error)
        return impossible(f"{version} cannot score logged requests ({type(error).__name__}: {error}): train it again")
    return VersionReplay(version, scores, None, size_bytes, latency_ms)


def _latency_ms(model: artefacts.LoadedModel, rows: Sequence[Prediction]) -> float:
    """Of one reading, from its values to its score, as a server does it; a reading of nulls where the log is empty."""
    blank: dict[str, Any] = dict.fromkeys(columns.RAW)
    readings = [blank | dict(r.features) for r in rows[-SINGLE_ROWS:]] or [blank]
    taken_s = []
    for i in range(SINGLE_ROWS):
        started = time.perf_counter()
        model.score(columns.as_frame([readings[i % len(readings)]]))
        taken_s.append(time.perf_counter() - started)
    return statistics.median(taken_s) * 1000
