"""What a model file holds, checked before anything is built from it. A skops file is a zip archive of one JSON schema and numpy arrays.

Everything is limited before it costs anything: bytes, members, depth, the size an array claims. The schema may name only the parts of the
classifiers listed here. skops trusts far more by itself, functions among it, and checks no index: an artefact that names them is refused.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mlrunbook.domain.errors import Refused

SCHEMA = "schema.json"
MOST_BYTES = 128 << 20  # of the file, and of all its members unpacked: a classifier of 2,000 trees with 31 leaves each has about 20 MiB
MOST_SCHEMA_BYTES = 16 << 20
MOST_MEMBERS = 20_000
MOST_DEPTH = 60  # of the schema: a classifier nests about 15 deep
MOST_MANIFEST_BYTES = 1 << 20
_CENTRAL_ENTRY = b"PK\x01\x02"
_MEMBER = re.compile(r"[0-9A-Za-z_-]{1,64}\.npy")
_KINDS = frozenset("biufUS")  # of an array's elements; the records of a tree's nodes besides
_SEED_POOL = "4"  # words, numpy's own: a larger pool takes time that grows with its square

# By skops's loader: what it may build.
_SCALARS = ("bool", "bool_", "int32", "int64", "uint8", "uint32", "uint64", "float32", "float64", "str_")
_HGB = "sklearn.ensemble._hist_gradient_boosting"
ALLOWED: dict[str, frozenset[str]] = {
    "DictNode": frozenset({"builtins.dict"}),
    "ListNode": frozenset({"builtins.list"}),
    "TupleNode": frozenset({"builtins.tuple"}),
    "JsonNode": frozenset({"builtins.str"}),
    "TypeNode": frozenset({"builtins.str", "builtins.int", "builtins.float", "builtins.bool", "numpy.float64", "numpy.int64"}),
    "NdArrayNode": frozenset({"numpy.ndarray", *(f"numpy.{name}" for name in _SCALARS)}),
    "DTypeNode": frozenset({"numpy.dtype"}),
    "RandomGeneratorNode": frozenset({"numpy.random._generator.Generator"}),
    "LossNode": frozenset({"sklearn._loss._loss.CyHalfBinomialLoss"}),
    "ObjectNode": frozenset(
        {
            f"{_HGB}.gradient_boosting.HistGradientBoostingClassifier",
            f"{_HGB}.binning._BinMapper",
            f"{_HGB}.predictor.TreePredictor",
            "sklearn._loss.link.Interval",
            "sklearn._loss.link.LogitLink",
            "sklearn._loss.loss.HalfBinomialLoss",
            "sklearn.linear_model._logistic.LogisticRegression",
            "sklearn.pipeline.Pipeline",
            "sklearn.preprocessing._data.StandardScaler",
            "sklearn.preprocessing._encoders.OneHotEncoder",
            "sklearn.preprocessing._label.LabelEncoder",
        }
    ),
}


class Unreadable(Exception):
    """The file is no artefact. Says why, to go behind "is not a readable skops file"."""


def read_file(path: Path, most_bytes: int) -> bytes:
    """The bytes of a plain file. FileNotFoundError; Refused for a link, a pipe or a device, and for more than `most_bytes`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}; save the version again") from error
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode):
        os.close(descriptor)
        raise Refused(f"{path} is not a plain file; save the version again")
    with open(descriptor, "rb") as file:
        if about.st_size > most_bytes:
            raise Refused(f"{path} has {about.st_size >> 20} MiB, more than {most_bytes >> 20}: save a smaller model")
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise Refused(f"{path} has more than {most_bytes >> 20} MiB: save a smaller model")
    return content


def checked(artefact: bytes) -> bytes:
    """The same artefact, packed anew from its checked members: what is loaded is what was checked.

    Unreadable: it is no skops file, or claims what it does not hold. Refused: it is too large, or holds what is not on the allow-list.
    """
    if artefact.count(_CENTRAL_ENTRY) > MOST_MEMBERS:
        raise Refused(f"it has more than {MOST_MEMBERS} members: save a smaller model")
    try:
        with zipfile.ZipFile(io.BytesIO(artefact)) as archive:
            members = dict(_members(archive))
    except Refused:
        raise
    except Exception as error:  # zipfile raises a dozen types on what is no archive
        raise Unreadable(f"{type(error).__name__}: {error}") from error
    if SCHEMA not in members:
        raise Unreadable(f"it has no {SCHEMA}")
    _check_schema(_parsed(members[SCHEMA]))
    for name, content in members.items():
        if name != SCHEMA:
            _check_array(name, content)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return out.getvalue()


def _members(archive: zipfile.ZipFile) -> Iterator[tuple[str, bytes]]:
    """Sizes are checked as declared first, and never more than declared is unpacked."""
    entries = archive.infolist()
    if len({entry.filename for entry in entries}) != len(entries):
        raise Unreadable("two members have the same name")
    if (total := sum(entry.file_size for entry in entries)) > MOST_BYTES:
        raise Refused(f"it unpacks to {total >> 20} MiB, more than {MOST_BYTES >> 20}: save a smaller model")
    for entry in entries:
        name = entry.filename
        if name != SCHEMA and not _MEMBER.fullmatch(name):
            raise Unreadable(f"it has a member named {name[:80]!r}")
        if name == SCHEMA and entry.file_size > MOST_SCHEMA_BYTES:
            raise Refused(f"its schema has more than {MOST_SCHEMA_BYTES >> 20} MiB: save a smaller model")
        if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise Unreadable(f"its member {name} is packed in another way than skops does")
        with archive.open(entry) as packed:
            content = packed.read(entry.file_size + 1)  # with a limit: without one it unpacks what comes, whatever was declared
        if len(content) != entry.file_size:
            raise Unreadable(f"its member {name} is not as long as it says")
        yield name, content


def _parsed(schema: bytes) -> Any:
    try:
        return json.loads(schema)
    except RecursionError as error:
        raise Unreadable(f"its schema nests deeper than {MOST_DEPTH}") from error
    except ValueError as error:
        raise Unreadable("its schema is no JSON") from error


def _check_schema(schema: Any) -> None:
    """Only listed types, and no deeper than `MOST_DEPTH`."""
    if not isinstance(schema, dict):
        raise Unreadable("its schema is no JSON object")
    todo: list[tuple[Any, int]] = [(schema, 0)]
    while todo:
        node, depth = todo.pop()
        if depth > MOST_DEPTH:
            raise Unreadable(f"its schema nests deeper than {MOST_DEPTH}")
        if isinstance(node, dict):
            if "__loader__" in node or "__class__" in node:
                _check_node(node)
            todo += ((part, depth + 1) for part in node.values())
        elif isinstance(node, list):
            todo += ((part, depth + 1) for part in node)


def _check_node(node: dict[str, Any]) -> None:
    loader, name = node.get("__loader__"), f"{node.get('__module__')}.{node.get('__class__')}"
    if not isinstance(loader, str) or name not in ALLOWED.get(loader, ()):
        raise Refused(f"it holds types that are not on the allow-list ({name[:120]}); save a model of an allowed type")
    if loader == "RandomGeneratorNode":
        _check_seed(node)


def _check_seed(generator: dict[str, Any]) -> None:
    try:
        pool = generator["content"]["seed_seq"]["content"]["pool_size"]["content"]
    except (KeyError, TypeError) as error:
        raise Unreadable("its random generator has no seed") from error
    if pool != _SEED_POOL:
        raise Unreadable("its random generator is none of numpy's")


def _check_array(name: str, content: bytes) -> None:
    """What the header claims is what is there: numpy would allocate what is claimed."""
    import numpy as np
    from numpy.lib import format as npy
    from sklearn.ensemble._hist_gradient_boosting.common import PREDICTOR_RECORD_DTYPE

    file = io.BytesIO(content)
    try:
        version = npy.read_magic(file)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, _, dtype = read(file)
    except Exception as error:  # also what Python's parser raises on a header of brackets alone
        raise Unreadable(f"its array {name} has no readable header ({type(error).__name__})") from error
    if dtype != np.dtype(PREDICTOR_RECORD_DTYPE) and dtype.kind not in _KINDS:
        raise Unreadable(f"its array {name} holds elements of the type {str(dtype)[:80]}")
    if len(shape) > 4 or any(not 0 <= length < 1 << 31 for length in shape):
        raise Unreadable(f"its array {name} has an impossible shape")
    if math.prod(shape) * dtype.itemsize != len(content) - file.tell():
        raise Unreadable(f"its array {name} is not as large as it says")
