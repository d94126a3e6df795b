"""Model artefacts on disk: one folder a version, holding model.skops and manifest.json.

skops instead of pickle, because unpickling runs code. What may be built is listed in `artefact_archive`; a file that names another type
is refused, whoever wrote it, and so is one whose indices or numbers would crash or mislead what scores with it (`artefact_estimator`).
scikit-learn does not promise that a model saved by one minor version predicts the same in another, so that is refused too.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import MISSING, asdict, dataclass, fields, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlrunbook.domain.errors import Invalid, NotFound, Refused
from mlrunbook.local.platform import artefact_archive, artefact_estimator
from mlrunbook.local.platform.artefact_archive import SCHEMA
from mlrunbook.local.platform.columns import ASSET_TYPE, ASSET_TYPES, MAX_TYPE_CHARS, MODEL_COLUMNS, NUMERIC, as_frame, engineer

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from threadpoolctl import ThreadpoolController

ARTEFACT, MANIFEST = "model.skops", "manifest.json"
MOST_ASSET_TYPES = 1_000
MOST_METRICS = 100
# Everything a HistGradientBoostingClassifier needs beyond what skops trusts by itself. Never extend it from a file's own wishes.
TRUSTED_TYPES: tuple[str, ...] = ("sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",)


@dataclass(frozen=True)
class Manifest:
    """What a version is. Training window aware UTC; `metrics` are F1, precision and recall on rows later than any trained on."""

    model: str
    version: str
    sha256: str  # of the artefact file; filled in by save()
    sklearn_version: str
    trained_from: datetime
    trained_to: datetime
    features: tuple[str, ...]
    threshold: float
    metrics: Mapping[str, float | None]
    rows: int
    asset_types: tuple[str, ...] = ASSET_TYPES  # those in the training data; their order is the code
    seed: int | None = None
    data_sha256: str | None = None  # of the training rows; with window and seed it says whether two trainings are the same

    def as_dict(self) -> dict[str, Any]:
        times = {"trained_from": self.trained_from.isoformat(), "trained_to": self.trained_to.isoformat()}
        return asdict(self) | times | {"features": list(self.features), "asset_types": list(self.asset_types)}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Manifest:
        """Raise Invalid when a key is missing or unreadable."""
        values = {f.name: body[f.name] for f in fields(cls) if f.name in body}
        missing = [f.name for f in fields(cls) if f.name not in values and f.default is MISSING]
        if missing:
            raise Invalid(f"the manifest lacks {', '.join(missing)}; save the version again", field=missing[0])
        try:
            values |= {k: datetime.fromisoformat(values[k]) for k in ("trained_from", "trained_to")}
            values |= {"features": tuple(values["features"]), "threshold": float(values["threshold"]), "rows": int(values["rows"])}
            values |= {"asset_types": tuple(map(str, values["asset_types"]))} if "asset_types" in values else {}
            values |= {"metrics": _metrics(values["metrics"])}
        except (TypeError, ValueError, OverflowError) as error:
            raise Invalid(f"the manifest is unreadable: {str(error)[:200]}; save the version again") from error
        _check_values(values)
        if not 0 <= values["threshold"] <= 1:
            raise Invalid(f"the manifest's threshold is {values['threshold']:g}, not a share between 0 and 1", field="threshold")
        return cls(**values)


def _metrics(given: Mapping[str, Any]) -> dict[str, float | None]:
    found = {str(name): None if value is None else float(value) for name, value in dict(given).items()}
    if len(found) > MOST_METRICS or not all(value is None or math.isfinite(value) for value in found.values()):
        raise ValueError("its metrics are not a few finite numbers")
    return found


def _check_values(values: Mapping[str, Any]) -> None:
    """What is stored and shown later must be what it says it is, and fit."""
    texts = [name for name in ("model", "version", "sha256", "sklearn_version") if not _is_text(values[name], 200)]
    dates = [name for name in ("trained_from", "trained_to") if values[name].tzinfo is None]
    lists = [name for name, most in (("features", 1000), ("asset_types", MOST_ASSET_TYPES)) if len(values.get(name, ())) > most]
    lists += [] if all(_is_text(t, MAX_TYPE_CHARS) for t in values.get("asset_types", ())) else ["asset_types"]
    for wrong, what in ((texts, "a short text"), (dates, "a moment with its time zone"), (lists, "a list of short texts")):
        if wrong:
            raise Invalid(f"the manifest's {wrong[0]} is not {what}; save the version again", field=wrong[0])


def _is_text(value: Any, most: int) -> bool:
    return isinstance(value, str) and len(value) <= most and "\0" not in value


class BadScores(Exception):
    """Scores that are no probabilities: not finite, outside 0 to 1, or not one for each row."""


@dataclass(frozen=True)
class LoadedModel:
    """A checked artefact, ready to score."""

    manifest: Manifest
    estimator: Any

    def score(self, frame: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Probability of failure for each row of RAW feature columns. BadScores where the estimator gives something else."""
        columns = engineer(frame, self.manifest.asset_types)[list(self.manifest.features)]
        with one_thread():
            scores: np.ndarray[Any, np.dtype[np.float64]] = self.estimator.predict_proba(columns.to_numpy())[:, 1]
        if len(scores) != len(frame) or not ((scores >= 0) & (scores <= 1)).all():  # NaN too
            raise BadScores(f"{self.manifest.version} gives scores that are no probabilities: train it again")
        return scores

    def check_scores(self, *, nulls: bool) -> None:
        """Score typical readings, and with `nulls` one of missing values alone: a version must do so before it may serve. Raises whatever
        the estimator raises, and BadScores."""
        self.score(as_frame(TYPICAL))
        if nulls:
            self.score(as_frame([dict.fromkeys((ASSET_TYPE, *NUMERIC))]))


# A machine at rest, at work, and at its limits.
TYPICAL: tuple[Mapping[str, Any], ...] = tuple(
    {ASSET_TYPE: kind} | dict(zip(NUMERIC, numbers, strict=True))
    for kind, numbers in (
        (ASSET_TYPES[0], (295.0, 305.0, 1150.0, 4.0, 0.0)),
        (ASSET_TYPES[1], (300.0, 310.0, 1500.0, 40.0, 100.0)),
        (ASSET_TYPES[2], (305.0, 314.0, 2900.0, 80.0, 250.0)),
    )
)


def one_thread() -> AbstractContextManager[Any]:
    """Fit or score on one core. OpenMP's threads wait for each other in a busy loop: on two cores that others use too, scoring one
    row took 276 ms instead of 1, and a fit 2.1 s instead of 0.3."""
    limiter: AbstractContextManager[Any] = _openmp().limit(limits=1, user_api="openmp")
    return limiter


@cache
def _openmp() -> ThreadpoolController:
    import sklearn.ensemble  # noqa: F401 - loads the OpenMP library that is to be found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def preload() -> None:
    """Import what loading a model needs, before somebody waits for it: seconds that the first replay or promotion would take longer."""
    import skops.io  # noqa: F401


def save(estimator: Any, folder: Path, manifest: Manifest) -> Manifest:
    """Write both files; the folder appears whole or not at all. Returns the manifest with the artefact's sha256.

    The same model gives the same bytes. Refused when the folder exists: a version, once made, never changes.
    """
    import skops.io

    artefact = _canonical(skops.io.dumps(estimator))
    finished = replace(manifest, sha256=hashlib.sha256(artefact).hexdigest())
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        _write(building / ARTEFACT, artefact)
        _write(building / MANIFEST, json.dumps(finished.as_dict(), indent=2, sort_keys=True).encode())
        building.chmod(0o755)
        if folder.exists():  # rename would silently replace an empty folder
            raise Refused(f"{folder} exists already and a version is never overwritten: choose another version")
        try:
            building.rename(folder)
        except OSError as error:
            raise Refused(f"{folder} could not be created: {error.strerror}; choose another version") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return finished


def _canonical(artefact: bytes) -> bytes:
    """A skops file without what differs from one saving to the next: the time in the zip, and the memory addresses by which skops names
    objects and array files. Both are numbered in the order of the schema; equal plain values share a number, as sharing them is chance.
    """
    with zipfile.ZipFile(io.BytesIO(artefact)) as source:
        schema = json.loads(source.read(SCHEMA))
        numbers: dict[Any, int] = {}
        files: dict[str, str] = {}

        def rename(node: Any) -> Any:
            if isinstance(node, list):
                return [rename(item) for item in node]
            if not isinstance(node, dict):
                return node
            fresh = dict(node)
            if "__id__" in node:
                same = ("value", node["content"]) if node.get("is_json") else node["__id__"]
                fresh["__id__"] = numbers.setdefault(same, len(numbers) + 1)  # from 1: skops takes 0 for none
            if isinstance(node.get("file"), str) and node.get("type") == "numpy":
                fresh["file"] = files.setdefault(node["file"], f"{len(files) + 1}{Path(node['file']).suffix}")
            return {key: value if key in ("__id__", "file") else rename(value) for key, value in fresh.items()}

        content = {SCHEMA: json.dumps(rename(schema), separators=(",", ":")).encode()}
        content |= {new: source.read(old) for old, new in files.items()}
        if left := set(source.namelist()) - {SCHEMA, *files}:
            raise Refused(
                f"the model holds parts that cannot be saved the same way twice ({', '.join(sorted(left)[:3])}); use another type"
            )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as target:
        for name, data in content.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # the same on every system
            target.writestr(entry, data)
    return out.getvalue()


def load(folder: Path) -> LoadedModel:
    """Read and check a version's folder. NotFound when there is none; Refused when it is not to be trusted, or cannot score.

    The sha256 here only shows that artefact and manifest belong together; whoever registered the version must compare
    `manifest.sha256` with the one recorded then, or both files could have been exchanged.
    """
    import sklearn

    manifest = read_manifest(folder)
    try:
        artefact = artefact_archive.read_file(folder / ARTEFACT, artefact_archive.MOST_BYTES)
    except FileNotFoundError as error:
        raise Refused(f"{folder / ARTEFACT} cannot be read: {error.strerror}; save the version again") from error
    actual = hashlib.sha256(artefact).hexdigest()
    if actual != manifest.sha256:
        raise Refused(
            f"{folder / ARTEFACT} was changed after it was saved (sha256 {actual[:12]}, the manifest says {manifest.sha256[:12]}): "
            "do not serve it, find out who changed it"
        )
    if _minor(manifest.sklearn_version) != _minor(sklearn.__version__):
        raise Refused(
            f"{folder.name} was saved with scikit-learn {manifest.sklearn_version} and {sklearn.__version__} is installed: "
            "its scores may differ; train it again, or install the version it was saved with"
        )
    unknown = [name for name in manifest.features if name not in MODEL_COLUMNS]
    if unknown:
        named = ", ".join(str(name)[:40] for name in unknown[:5])
        raise Refused(f"{folder.name} wants features this platform does not compute: {named}; train it again")
    try:
        loaded = LoadedModel(manifest, _built(artefact, manifest.features))
        loaded.check_scores(nulls=False)
    except BadScores as error:
        raise Refused(f"{folder / ARTEFACT} is refused: {error}") from error
    except artefact_archive.Unreadable as error:
        raise Refused(f"{folder / ARTEFACT} is not a readable skops file ({error}); save the version again") from error
    except Refused as error:
        raise Refused(f"{folder / ARTEFACT} is refused: {error}") from error
    except Exception as error:
        raise Refused(f"{folder.name} cannot score a typical reading ({_first_line(error)}): train it again") from error
    return loaded


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _built(artefact: bytes, features: Sequence[str]) -> Any:
    """The estimator, or Unreadable or Refused, whatever the bytes are: compiled code would crash on some, and walk in circles on others."""
    import skops.io

    archive = artefact_archive.checked(artefact)
    try:
        estimator = skops.io.loads(archive, trusted=list(TRUSTED_TYPES))
        artefact_estimator.check(estimator, features)
    except artefact_estimator.Unsound as error:
        raise Refused(str(error)) from error
    except Exception as error:  # whatever the parser or the parts it puts together raise on odd content
        raise artefact_archive.Unreadable(type(error).__name__) from error
    return estimator


def read_manifest(folder: Path) -> Manifest:
    """The manifest alone. NotFound without the folder, Refused when the manifest is missing or unreadable."""
    if not folder.is_dir():
        raise NotFound(f"there is no model version at {folder}; save one with mlrunbook.local.platform.artefacts.save")
    try:
        body = json.loads(artefact_archive.read_file(folder / MANIFEST, artefact_archive.MOST_MANIFEST_BYTES))
    except FileNotFoundError as error:
        raise Refused(f"{folder} has no {MANIFEST}: nobody can say what it is; save the version again") from error
    except (ValueError, RecursionError) as error:
        raise Refused(f"{folder / MANIFEST} is not readable JSON; save the version again") from error
    if not isinstance(body, dict):
        raise Refused(f"{folder / MANIFEST} must hold a JSON object; save the version again")
    return Manifest.from_dict(body)


def _minor(version: str) -> tuple[str, ...]:
    return tuple(str(version).split(".")[:2])


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
