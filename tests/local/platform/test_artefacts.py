"""A version folder is whole, unchanged and of allowed types, or it is refused in one sentence."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import sklearn
import skops.io
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from mlrunbook.domain.errors import NotFound, Refused
from mlrunbook.drills.simulator.fleet import Fleet
from mlrunbook.local.platform import artefacts
from mlrunbook.local.platform.artefacts import ARTEFACT, MANIFEST, LoadedModel, Manifest
from mlrunbook.local.platform.training import train

TO = datetime(2024, 6, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def trained() -> tuple[HistGradientBoostingClassifier, Manifest]:
    return train(
        Fleet(seed=1).training(6000),
        model="predictive_maintenance",
        version="v1.5.0",
        seed=0,
        trained_from=TO - timedelta(days=90),
        trained_to=TO,
    )


@pytest.fixture
def folder(tmp_path: Path, trained: tuple[HistGradientBoostingClassifier, Manifest]) -> Path:
    artefacts.save(trained[0], tmp_path / "v1.5.0", trained[1])
    return tmp_path / "v1.5.0"


def rewrite(folder: Path, **changes: object) -> None:
    body = json.loads((folder / MANIFEST).read_text()) | changes
    (folder / MANIFEST).write_text(json.dumps({k: v for k, v in body.items() if v is not None}))


def plant(folder: Path, content: bytes) -> None:
    """Exchange artefact and manifest together, as somebody with access to the folder could."""
    (folder / ARTEFACT).write_bytes(content)
    rewrite(folder, sha256=hashlib.sha256(content).hexdigest())


def test_a_saved_version_scores_as_the_one_trained(folder: Path, trained: tuple[HistGradientBoostingClassifier, Manifest]) -> None:
    live, loaded = Fleet(seed=2).readings(500), artefacts.load(folder)
    assert np.array_equal(loaded.score(live), LoadedModel(trained[1], trained[0]).score(live))
    assert ((loaded.score(live) >= 0) & (loaded.score(live) <= 1)).all()


def test_the_manifest_survives_and_names_the_artefact(folder: Path, trained: tuple[HistGradientBoostingClassifier, Manifest]) -> None:
    manifest = artefacts.load(folder).manifest
    assert manifest.sha256 == hashlib.sha256((folder / ARTEFACT).read_bytes()).hexdigest()
    assert manifest.as_dict() | {"sha256": ""} == trained[1].as_dict()
    assert manifest.trained_to == TO
    assert manifest.sklearn_version == sklearn.__version__


def test_a_version_is_never_overwritten(folder: Path, trained: tuple[HistGradientBoostingClassifier, Manifest]) -> None:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    with pytest.raises(Refused, match="never overwritten"):
        artefacts.save(trained[0], folder, trained[1])
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert [p.name for p in folder.parent.iterdir()] == ["v1.5.0"]


def test_a_save_that_fails_leaves_nothing(tmp_path: Path, trained: tuple[HistGradientBoostingClassifier, Manifest]) -> None:
    (tmp_path / "v9").mkdir()
    with pytest.raises(Refused):
        artefacts.save(trained[0], tmp_path / "v9", trained[1])
    assert list((tmp_path / "v9").iterdir()) == []
    assert [p.name for p in tmp_path.iterdir()] == ["v9"]


def test_a_tampered_artefact_is_refused(folder: Path) -> None:
    content = bytearray((folder / ARTEFACT).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / ARTEFACT).write_bytes(content)
    with pytest.raises(Refused, match="changed after it was saved"):
        artefacts.load(folder)


def test_an_artefact_of_an_unlisted_type_is_refused_even_with_a_matching_manifest(folder: Path) -> None:
    plant(folder, skops.io.dumps(FunctionTransformer(func=np.fromfile)))
    with pytest.raises(Refused, match="allow-list"):
        artefacts.load(folder)


def test_a_pickle_is_refused_and_never_run(folder: Path, tmp_path: Path) -> None:
    import pickle

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "ran",)

    plant(folder, pickle.dumps(Bomb()))
    with pytest.raises(Refused, match="not a readable skops file"):
        artefacts.load(folder)
    assert not (tmp_path / "ran").exists()


def test_something_that_gives_no_probabilities_is_refused(folder: Path) -> None:
    plant(folder, skops.io.dumps(StandardScaler()))
    with pytest.raises(Refused, match="no probabilities"):
        artefacts.load(folder)


def test_a_version_saved_by_another_scikit_learn_minor_is_refused(folder: Path) -> None:
    rewrite(folder, sklearn_version="0.24.2")
    with pytest.raises(Refused, match=r"scikit-learn 0\.24\.2"):
        artefacts.load(folder)


def test_another_patch_release_of_scikit_learn_is_fine(folder: Path) -> None:
    rewrite(folder, sklearn_version=".".join([*sklearn.__version__.split(".")[:2], "99"]))
    assert artefacts.load(folder).manifest.version == "v1.5.0"


def test_a_version_without_a_manifest_is_refused(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    with pytest.raises(Refused, match="has no manifest"):
        artefacts.load(folder)


@pytest.mark.parametrize("key", ["sha256", "threshold", "features", "trained_to"])
def test_a_manifest_that_lacks_a_key_is_refused_by_name(folder: Path, key: str) -> None:
    rewrite(folder, **{key: None})
    with pytest.raises(Refused, match=key):
        artefacts.load(folder)


@pytest.mark.parametrize(
    "changes", [{"threshold": "high"}, {"threshold": 2}, {"trained_to": "May"}, {"features": 3}, {"features": "power_w"}, {"rows": []}]
)
def test_an_unreadable_manifest_is_refused(folder: Path, changes: dict[str, object]) -> None:
    rewrite(folder, **changes)
    with pytest.raises(Refused):
        artefacts.load(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe"])
def test_a_manifest_that_is_no_json_object_is_refused(folder: Path, content: bytes) -> None:
    (folder / MANIFEST).write_bytes(content)
    with pytest.raises(Refused):
        artefacts.load(folder)


def test_a_version_that_wants_unknown_features_is_refused(folder: Path) -> None:
    rewrite(folder, features=["torque_nm", "vibration_mm_s"])
    with pytest.raises(Refused, match="vibration_mm_s"):
        artefacts.load(folder)


def test_a_missing_version_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no model version"):
        artefacts.load(tmp_path / "v7")


def test_a_version_without_its_artefact_is_refused(folder: Path) -> None:
    (folder / ARTEFACT).unlink()
    with pytest.raises(Refused, match="cannot be read"):
        artefacts.load(folder)


TRAIN_AND_SAVE = """
import sys
from pathlib import Path
from tests.local.platform.test_artefacts import trained_anew
from mlrunbook.local.platform import artefacts

estimator, manifest = trained_anew()
artefacts.save(estimator, Path(sys.argv[1]), manifest)
"""


def trained_anew() -> tuple[HistGradientBoostingClassifier, Manifest]:
    return train(Fleet(seed=1).training(6000), model="m", version="v1", seed=12345, trained_from=TO, trained_to=TO, refit=True)


def test_the_same_training_in_another_process_gives_the_same_artefact(tmp_path: Path) -> None:
    estimator, manifest = trained_anew()
    here = artefacts.save(estimator, tmp_path / "here", manifest)
    argv = [sys.executable, "-c", TRAIN_AND_SAVE, str(tmp_path / "there")]
    subprocess.run(argv, env=os.environ | {"PYTHONHASHSEED": "7"}, check=True, capture_output=True, timeout=120)
    assert (tmp_path / "there" / ARTEFACT).read_bytes() == (tmp_path / "here" / ARTEFACT).read_bytes()
    assert artefacts.load(tmp_path / "there").manifest == here


def test_saving_a_loaded_version_again_changes_nothing(folder: Path, tmp_path: Path) -> None:
    loaded = artefacts.load(folder)
    assert artefacts.save(loaded.estimator, tmp_path / "again", loaded.manifest) == loaded.manifest


def test_a_manifest_from_before_asset_types_were_recorded_knows_the_usual_ones(folder: Path) -> None:
    body = json.loads((folder / MANIFEST).read_text())
    for key in ("asset_types", "seed", "data_sha256"):
        del body[key]
    (folder / MANIFEST).write_text(json.dumps(body))
    assert artefacts.load(folder).manifest.asset_types == ("L", "M", "H")


def test_an_asset_type_that_was_not_trained_on_counts_as_missing(folder: Path) -> None:
    live, loaded = Fleet(seed=2).readings(500), artefacts.load(folder)
    strange, missing = live.assign(type="X"), live.assign(type=None)
    assert np.array_equal(loaded.score(strange), loaded.score(missing))


def test_a_version_knows_the_types_in_its_training_data_in_a_stable_order() -> None:
    frame = Fleet(seed=1).training(6000)
    at_random = frame["type"].where(frame.index % 5 != 0, "XL")
    _, manifest = train(frame.assign(type=at_random), model="m", version="v1", seed=0, trained_from=TO, trained_to=TO)
    assert manifest.asset_types == ("L", "M", "H", "XL")
