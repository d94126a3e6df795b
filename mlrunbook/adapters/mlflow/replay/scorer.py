"""Run as a program by the model's own interpreter, confined: loads one version with MLflow and scores rows.

    python -I scorer.py MODEL_DIR ROWS.json RESULT.json

ROWS.json: {"rows": [{feature: value}], "yes": [text], "no": [text]}. RESULT.json: {"scores", "labels_only", "latency_ms"} or {"problem"}.
It stands alone: the model's environment has MLflow and the model's libraries, and not us.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

WITH_PROBABILITIES = ("sklearn", "xgboost", "lightgbm", "catboost")
SINGLE_ROWS, SINGLE_S = 30, 3.0


class Problem(Exception):
    """Why the version cannot score the rows, in words."""


def main(model_dir: str, rows_file: str, result_file: str) -> None:
    with open(rows_file, encoding="utf-8") as file:
        given = json.load(file)
    try:
        result = _scored(model_dir, given)
    except Problem as error:
        result = {"problem": str(error)}
    except MemoryError:
        result = {"problem": "it needs more memory than replay.memory_mb allows"}
    except Exception as error:  # whatever a wrong model raises
        result = {"problem": f"{type(error).__name__}: {error}"}
    with open(result_file, "w", encoding="utf-8") as file:
        json.dump(result, file)


def _scored(model_dir: str, given: dict[str, Any]) -> dict[str, Any]:
    try:
        import mlflow.pyfunc
        import pandas as pd
    except Exception as error:
        raise Problem(f"MLflow cannot be imported by {sys.executable} ({error}): install mlflow-skinny and the model's requirements there, "
                      "or name another interpreter in replay.python") from error  # fmt: skip
    loaded = mlflow.pyfunc.load_model(model_dir)
    schema = loaded.metadata.get_input_schema()
    kinds = {one.name: str(getattr(one.type, "name", one.type)) for one in schema.inputs} if schema and schema.has_input_names() else {}
    frame = _frame(pd, given["rows"], kinds)
    words = {one: True for one in given["yes"]} | {one: False for one in given["no"]}
    predict, labels_only = _way(loaded, frame, words)
    scores = predict(frame)
    if len(scores) != len(frame):
        raise Problem(f"it answers {len(scores)} values for {len(frame)} rows")
    return {"scores": scores, "labels_only": labels_only, "latency_ms": _latency_ms(predict, frame)}


def _frame(pd: Any, rows: list[dict[str, Any]], kinds: dict[str, str]) -> Any:
    """With the types of the signature: a log of text and whole numbers is what a signature of doubles refuses."""
    frame = pd.DataFrame(rows, columns=list(kinds) or None)
    for name, kind in kinds.items():
        column = frame[name]
        if kind in ("double", "float"):
            frame[name] = pd.to_numeric(column).astype("float64" if kind == "double" else "float32")
        elif kind in ("integer", "long") and not column.isna().any():
            frame[name] = pd.to_numeric(column).astype("int32" if kind == "integer" else "int64")
        elif kind == "boolean" and not column.isna().any():
            frame[name] = column.astype(bool)
        elif kind == "datetime":
            frame[name] = pd.to_datetime(column)
        elif kind == "string":
            frame[name] = column.map(lambda value: value if value is None or isinstance(value, str) else str(value))
    return frame


def _way(loaded: Any, frame: Any, words: dict[str, bool]) -> tuple[Any, bool]:
    """How it is asked, and whether it answers labels alone."""
    flavors = loaded.metadata.flavors
    raw = loaded.get_raw_model() if any(name in flavors for name in WITH_PROBABILITIES) else None
    if raw is not None and hasattr(raw, "predict_proba") and hasattr(raw, "classes_"):
        place = _positive(list(raw.classes_), words)
        return lambda rows: [float(one[place]) for one in raw.predict_proba(rows)], False
    answer = _values(loaded.predict(frame.head(200)))
    if answer and all(isinstance(one, list) for one in answer):
        if len(answer[0]) != 2:
            raise Problem(f"it answers {len(answer[0])} values a row: one score, a label, or the probabilities of two classes are needed")
        return lambda rows: [float(one[1]) for one in _values(loaded.predict(rows))], False
    if any(isinstance(one, float) and one not in (0.0, 1.0) for one in answer):
        return lambda rows: [float(one) for one in _values(loaded.predict(rows))], False
    return lambda rows: [_label(one, words) for one in _values(loaded.predict(rows))], True


def _values(answer: Any) -> list[Any]:
    answer = getattr(answer, "values", answer)  # of a DataFrame or a Series
    answer = answer.tolist() if hasattr(answer, "tolist") else list(answer)
    return [one[0] if isinstance(one, list) and len(one) == 1 else one for one in answer]


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip().lower()


def _label(value: Any, words: dict[str, bool]) -> float:
    said = _text(value)
    if said not in words:
        raise Problem(f"it answers {said[:50]!r}, neither yes nor no: add it to predictions.positive or predictions.negative")
    return float(words[said])


def _positive(classes: list[Any], words: dict[str, bool]) -> int:
    said = [_text(one.item() if hasattr(one, "item") else one) for one in classes]
    if len(said) != 2:
        raise Problem(f"it tells {len(said)} classes apart: only models of two are compared")
    yes = [i for i, one in enumerate(said) if words.get(one) is True]
    no = [i for i, one in enumerate(said) if words.get(one) is False]
    if len(yes) == 1:
        return yes[0]
    if not yes and len(no) == 1:
        return 1 - no[0]
    raise Problem(f"its classes are {said[0][:50]!r} and {said[1][:50]!r}: say which means yes in predictions.positive")


def _latency_ms(predict: Any, frame: Any) -> float:
    taken_s, until = [], time.perf_counter() + SINGLE_S
    for i in range(SINGLE_ROWS):
        row = frame.iloc[[i % len(frame)]]
        started = time.perf_counter()
        predict(row)
        taken_s.append(time.perf_counter() - started)
        if time.perf_counter() > until:
            break
    return statistics.median(taken_s) * 1000


if __name__ == "__main__":
    main(*sys.argv[1:])
