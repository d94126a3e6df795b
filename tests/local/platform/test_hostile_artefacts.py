"""Whatever a version's folder holds, loading it ends with a version that scores or with one sentence: no crash, no hang, no bomb."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import resource
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, PolynomialFeatures

from mlrunbook.domain.errors import Invalid, RunbookError
from mlrunbook.local.platform import artefact_archive, artefacts, columns
from mlrunbook.local.platform.artefacts import ARTEFACT, MANIFEST
from tests.local.platform.kit import linear, reading, save_version

FIELDS = (
    "value",
    "feature_idx",
    "num_threshold",
    "left",
    "right",
    "is_leaf",
    "is_categorical",
    "bitset_idx",
    "missing_go_to_left",
    "depth",
)
ROWS = columns.as_frame([dict.fromkeys(columns.RAW), reading(20.0), reading(80.0)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_version(tmp_path_factory.mktemp("models"), "m", "v1.0.0")


@pytest.fixture(scope="module")
def sound(folder: Path) -> bytes:
    return (folder / ARTEFACT).read_bytes()


def plant(folder: Path, artefact: bytes) -> None:
    """Exchange artefact and manifest together, as somebody with access to the folder could."""
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / ARTEFACT).write_bytes(artefact)
    (folder / MANIFEST).write_text(json.dumps(manifest | {"sha256": hashlib.sha256(artefact).hexdigest()}))


def refusal(folder: Path, artefact: bytes) -> str:
    plant(folder, artefact)
    with pytest.raises(RunbookError) as refused:
        artefacts.load(folder)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def ends_well(folder: Path, artefact: bytes) -> None:
    plant(folder, artefact)
    try:
        loaded = artefacts.load(folder)
    except RunbookError as error:
        assert str(error)  # noqa: PT017 - or it is loaded
        return
    for _ in range(2):
        try:
            scores = loaded.score(ROWS)
        except (artefacts.BadScores, ValueError):
            continue
        assert ((scores >= 0) & (scores <= 1)).all()


def parts(artefact: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(artefact)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def with_nodes(artefact: bytes, change: Callable[[Any], None]) -> bytes:
    estimator = skops.io.loads(artefact, trusted=list(artefacts.TRUSTED_TYPES))
    for grown in estimator._predictors:
        for tree in grown:
            change(tree.nodes)
    return bytes(skops.io.dumps(estimator))


def put(field: str, value: Any, *, at: int | None = None) -> Callable[[Any], None]:
    def change(nodes: Any) -> None:
        nodes[field][slice(None) if at is None else at] = value

    return change


def both(*changes: Callable[[Any], None]) -> Callable[[Any], None]:
    def change(nodes: Any) -> None:
        for one in changes:
            one(nodes)

    return change


@pytest.mark.parametrize(
    "change",
    {
        "a cycle": both(put("left", 0, at=0), put("right", 0, at=0), put("is_leaf", 0, at=0)),
        "a child far outside": put("left", 2**31 - 1),
        "a child just outside": lambda nodes: put("right", len(nodes))(nodes),
        "a feature outside": put("feature_idx", 2**30),
        "a negative feature": put("feature_idx", -1),
        "a leaf of NaN": put("value", np.nan),
        "an infinite leaf": put("value", -np.inf),
        "leaves without end": put("value", 1.7e308),
        "a threshold of NaN": put("num_threshold", np.nan),
        "a category nobody has": put("is_categorical", 1),
        "no leaf": put("is_leaf", 0),
    }.items(),
    ids=lambda named: named[0],
)
def test_a_tree_that_leads_out_of_itself_is_refused(folder: Path, sound: bytes, change: tuple[str, Callable[[Any], None]]) -> None:
    assert "is refused: " in refusal(folder, with_nodes(sound, change[1]))


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(FunctionTransformer(func), DummyClassifier())
        for func in (np.save, np.load, np.fromfile, os.path.exists, copy.copy, eval)
    ]
    + [DummyClassifier(), RandomForestClassifier(), KNeighborsClassifier(), PolynomialFeatures(degree=50)],
    ids=lambda made: "+".join(made.named_steps) + made[0].func.__name__ if hasattr(made, "named_steps") else type(made).__name__,
)
def test_what_is_not_on_the_list_is_refused_though_skops_trusts_it(folder: Path, estimator: Any) -> None:
    assert "allow-list" in refusal(folder, skops.io.dumps(estimator)) or "skops" in refusal(folder, skops.io.dumps(estimator))


def test_a_linear_model_and_one_of_trees_are_loaded(tmp_path: Path, folder: Path, sound: bytes) -> None:
    plant(folder, sound)
    assert artefacts.load(folder).score(ROWS).shape == (3,)
    assert artefacts.load(save_version(tmp_path, "m", "v1.1.0", estimator=linear())).score(ROWS[1:]).shape == (2,)


def test_weights_that_would_fill_the_memory_with_a_request_are_refused(folder: Path) -> None:
    huge = linear()
    huge[-1].intercept_ = np.zeros((10**6, 1))
    assert "intercept_" in refusal(folder, skops.io.dumps(huge))
    wild = linear()
    wild[-1].coef_[:] = np.inf
    assert "finite" in refusal(folder, skops.io.dumps(wild))


def bomb(name: str, megabytes: int, *, declared: int | None = None) -> Callable[[bytes], bytes]:
    def make(artefact: bytes) -> bytes:
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in parts(artefact).items():
                archive.writestr(member, content)
            with archive.open(name, "w", force_zip64=True) as member_file:
                for _ in range(megabytes):
                    member_file.write(bytes(1 << 20))
            if declared is not None:
                archive.filelist[-1].file_size = declared
        return out.getvalue()

    return make


def claims(shape: tuple[int, ...]) -> Callable[[bytes], bytes]:
    """An array of a few bytes whose header says it has this shape."""

    def make(artefact: bytes) -> bytes:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
        members = parts(artefact)
        name = next(n for n in members if n.endswith(".npy"))
        return packed(members | {name: header.getvalue() + bytes(64)})

    return make


def schema(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda artefact: packed(parts(artefact) | {"schema.json": change(parts(artefact)["schema.json"])})


def nested(opening: bytes, closing: bytes, times: int) -> Callable[[bytes], bytes]:
    return schema(lambda _: opening * times + closing * times)


ARCHIVES: dict[str, Callable[[bytes], bytes]] = {
    "a bomb": bomb("9999.npy", 400),
    "a bomb that declares ten bytes": bomb("9999.npy", 400, declared=10),
    "a schema as a bomb": lambda artefact: bomb("schema.json", 100)(packed({"1.npy": b""})),
    "an array that claims terabytes": claims((1 << 40,)),
    "an array that claims gigabytes": claims((1 << 15, 1 << 15)),
    "an array of nothing, huge": claims((0, 1 << 62)),
    "an array of less than nothing": claims((-8,)),
    "a deep schema": nested(b'{"__class__":"list","__module__":"builtins","__loader__":"ListNode","content":[', b"]}", 20_000),
    "a schema of 200 levels": nested(b'{"__class__":"list","__module__":"builtins","__loader__":"ListNode","content":[', b"]}", 200),
    "a schema of brackets": nested(b"[", b"]", 100_000),
    "a header of brackets": lambda artefact: packed(parts(artefact) | {"1.npy": b"\x93NUMPY\x01\x00\x00\x10" + b"(" * 4096}),
    "a path outside": lambda artefact: packed(parts(artefact) | {"../../outside.npy": b""}),
    "an absolute path": lambda artefact: packed(parts(artefact) | {"/etc/passwd": b""}),
    "a folder": lambda artefact: packed(parts(artefact) | {"folder/": b""}),
    "thirty thousand members": lambda artefact: packed(parts(artefact) | {f"{n}.npy": b"" for n in range(100, 30_100)}),
    "another packing": lambda artefact: packed(parts(artefact), zipfile.ZIP_LZMA),
    "no schema": lambda artefact: packed({name: content for name, content in parts(artefact).items() if name != "schema.json"}),
    "a seed that takes for ever": schema(
        lambda text: text.replace(b'"pool_size": {', b'"pool_size": {"x": 1, ').replace(b'"content": "4"', b'"content": "400000"')
    ),
    "nothing": lambda _: b"",
}


@pytest.mark.parametrize("make", ARCHIVES.values(), ids=ARCHIVES.keys())
def test_an_archive_that_claims_or_hides_something_is_refused_and_costs_little(
    folder: Path, sound: bytes, make: Callable[[bytes], bytes]
) -> None:
    artefact = make(bytes(skops.io.dumps(skops.io.loads(sound, trusted=list(artefacts.TRUSTED_TYPES)))))
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    try:
        refusal(folder, artefact)
        assert tracemalloc.get_traced_memory()[1] < 300 << 20
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 << 10  # KiB


def test_a_file_that_is_no_plain_file_is_refused_and_never_waited_for(folder: Path, sound: bytes, tmp_path: Path) -> None:
    plant(folder, sound)
    for name in (ARTEFACT, MANIFEST):
        kept = (folder / name).read_bytes()
        for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: path.mkdir()):
            (folder / name).unlink()
            make(folder / name)
            with pytest.raises(RunbookError):
                artefacts.load(folder)
            (folder / name).rmdir() if (folder / name).is_dir() and not (folder / name).is_symlink() else (folder / name).unlink()
            (folder / name).write_bytes(kept)
    assert artefacts.load(folder).manifest.version == "v1.0.0"


def test_a_file_of_a_gigabyte_is_refused_unread(folder: Path, sound: bytes) -> None:
    plant(folder, sound)
    with open(folder / ARTEFACT, "r+b") as file:
        file.truncate(1 << 30)
    began = time.monotonic()
    with pytest.raises(RunbookError, match=f"more than {artefact_archive.MOST_BYTES >> 20}"):
        artefacts.load(folder)
    assert time.monotonic() - began < 2


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=300) | st.just(10**400) | st.just("\0"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_manifest_of_anything_is_read_or_refused(folder: Path, sound: bytes, data: st.DataObject) -> None:
    plant(folder, sound)
    good = json.loads((folder / MANIFEST).read_text())
    changed = good | {data.draw(st.sampled_from(sorted(good))): data.draw(JSON)}
    try:
        (folder / MANIFEST).write_text(json.dumps(changed))
        manifest = artefacts.load(folder).manifest
        json.dumps(manifest.as_dict(), allow_nan=False)
    except (RunbookError, Invalid):
        pass
    finally:
        (folder / MANIFEST).write_text(json.dumps(good))


def test_a_manifest_of_brackets_is_refused(folder: Path) -> None:
    kept = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(RunbookError, match="not readable JSON"):
        artefacts.load(folder)
    (folder / MANIFEST).write_text(kept)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_bytes_changed_at_random_end_with_a_version_or_a_refusal(folder: Path, sound: bytes, data: st.DataObject) -> None:
    changed = bytearray(sound)
    for _ in range(data.draw(st.integers(1, 8))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(changed)] * 4 + [len(changed) // 2, 30]))
    ends_well(folder, bytes(changed[:cut]))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_nodes_changed_at_random_end_with_a_version_or_a_refusal(folder: Path, sound: bytes, data: st.DataObject) -> None:
    members = parts(sound)
    found = {name: np.load(io.BytesIO(content)) for name, content in members.items() if name.endswith(".npy")}
    trees = [name for name, array in found.items() if array.dtype.names]
    nodes = found[name := data.draw(st.sampled_from(trees))].copy()
    for _ in range(data.draw(st.integers(1, 4))):
        field, at = data.draw(st.sampled_from(FIELDS)), data.draw(st.integers(0, len(nodes) - 1))
        raw = data.draw(st.binary(min_size=8, max_size=8) | st.sampled_from([b"\xff" * 8, bytes(8), b"\x01" + bytes(7)]))
        nodes[field][at] = np.frombuffer(raw[: nodes.dtype[field].itemsize], dtype=nodes.dtype[field])[0]
    out = io.BytesIO()
    np.save(out, nodes)
    ends_well(folder, packed(members | {name: out.getvalue()}))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_schema_changed_at_random_ends_with_a_version_or_a_refusal(folder: Path, sound: bytes, data: st.DataObject) -> None:
    members = parts(sound)
    body = json.loads(members["schema.json"])
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            places.append((node, key))
            walk(value)

    walk(body)
    for _ in range(data.draw(st.integers(1, 3))):
        node, key = places[data.draw(st.integers(0, len(places) - 1))]
        if isinstance(node, list) and not isinstance(key, int):
            continue
        other, at = places[data.draw(st.integers(0, len(places) - 1))]
        taken = other.get(at) if isinstance(other, dict) else None
        node[key] = data.draw(JSON | st.just(copy.deepcopy(taken)))
    ends_well(folder, packed(members | {"schema.json": json.dumps(body).encode()}))


def test_a_model_trained_here_passes(tmp_path: Path) -> None:
    """Also one that splits on missing values alone, whose threshold is infinite."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, len(columns.MODEL_COLUMNS)))
    x[::3, 4] = np.nan
    fitted = HistGradientBoostingClassifier(max_iter=5).fit(x, np.isnan(x[:, 4]))
    assert any(np.isinf(tree.nodes["num_threshold"]).any() for grown in fitted._predictors for tree in grown)
    assert artefacts.load(save_version(tmp_path, "m", "v1.2.0", estimator=fitted)).score(ROWS).shape == (3,)
