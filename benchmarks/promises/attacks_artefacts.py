"""Attacks by what a release pipeline hands over: each says what is tried, and returns True if it worked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.promises.site import Site
from mlrunbook.local.platform import artefacts
from mlrunbook.local.platform import columns as features
from tests.local.platform.kit import reading, save_version

MODEL = "attacked"
Spoil = Callable[[Any], None]
WITHIN_S = 30.0


def _cycle(nodes: Any) -> None:
    nodes["left"][0] = nodes["right"][0] = 0
    nodes["is_leaf"][0] = 0


def _child_out_of_bounds(nodes: Any) -> None:
    nodes["left"][:] = nodes["right"][:] = 2**31 - 1
    nodes["is_leaf"][:] = 0


def _child_close_by(nodes: Any) -> None:
    nodes["left"] += 100_000
    nodes["right"] += 100_000


def _feature_out_of_bounds(nodes: Any) -> None:
    nodes["feature_idx"][:] = 2**30
    nodes["is_leaf"][0] = 0


def _not_a_number(nodes: Any) -> None:
    nodes["value"][:] = np.nan


def _score_of(folder: str, out: Any) -> None:
    try:
        model = artefacts.load(Path(folder))
        scores = model.score(features.as_frame([reading(80.0), reading(None)]))
        out.send("sound" if np.isfinite(scores).all() and ((scores >= 0) & (scores <= 1)).all() else "scores that are no probabilities")
    except Exception as error:
        out.send(f"refused: {type(error).__name__}")


def a_model_file_crashes_hangs_or_scores_nonsense(site: Site) -> bool:
    """Trees with a cycle, with children and features out of bounds, and with leaves that are no numbers, under a right checksum."""
    models = site.config.models_dir
    for n, spoil in enumerate((_cycle, _child_out_of_bounds, _child_close_by, _feature_out_of_bounds, _not_a_number)):
        save_version(models, MODEL, f"v1.{n}.0")
        _rewrite(models / MODEL / f"v1.{n}.0", spoil)
        ours, theirs = get_context("fork").Pipe(duplex=False)
        process = get_context("fork").Process(target=_score_of, args=(str(models / MODEL / f"v1.{n}.0"), theirs))
        process.start()
        theirs.close()
        said = ""
        if ours.poll(WITHIN_S):
            try:
                said = ours.recv()
            except EOFError:
                said = "the process died"
        process.kill()
        process.join()
        if not said.startswith(("refused", "sound")):
            return True
    return False


def _rewrite(folder: Path, spoil: Spoil) -> None:
    import skops.io

    file = folder / "model.skops"
    estimator = skops.io.loads(file.read_bytes(), trusted=skops.io.get_untrusted_types(data=file.read_bytes()))
    trees = estimator if hasattr(estimator, "_predictors") else estimator[-1]
    for some in trees._predictors:
        for tree in some:
            spoil(tree.nodes)
    data = skops.io.dumps(estimator)
    file.write_bytes(data)
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"sha256": hashlib.sha256(data).hexdigest()}))


ATTACKS = (a_model_file_crashes_hangs_or_scores_nonsense,)
