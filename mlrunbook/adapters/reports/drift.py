"""The drift report as an HTML page, drawn by Evidently in a process of its own.

Its import takes 7 s and 290 MB, so it stays out of the flow's process, and nothing it does can take the flow with it. The verdicts on the
page are ours: Evidently's own tests would call a column drifted that we do not, and the other way round.
"""

from __future__ import annotations

import html
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlrunbook.domain.errors import Refused

if TYPE_CHECKING:
    import pandas as pd

    from mlrunbook.domain.evaluation.drift import DriftVerdict

MOST_ROWS = 100_000  # of each side: beyond that the page takes minutes and shows nothing more
TIMEOUT_S = 90.0
TEST = "KS or chi-square, Benjamini-Hochberg"
Columns = Mapping[str, Sequence[Any]]


def draw(reference: Columns, recent: Columns, verdict: DriftVerdict, *, timeout_s: float = TIMEOUT_S) -> bytes:
    """The page. Columns without a value on either side, or of another type than before, are named on it but not drawn: Evidently draws
    nothing at all when it meets one. Refused when it cannot be drawn or takes too long."""
    work = {
        "reference": _sampled(reference),
        "recent": _sampled(recent),
        "verdicts": {name: [c.p, bool(c.found)] for name, c in verdict.columns.items()},
        "sentence": verdict.sentence,
    }
    argv = [sys.executable, "-W", "ignore", "-m", "mlrunbook.adapters.reports.drift"]
    env = os.environ | {"DO_NOT_TRACK": "1"}  # Evidently would report its use otherwise
    try:
        done = subprocess.run(argv, input=json.dumps(work).encode(), capture_output=True, timeout=timeout_s, env=env, check=False)
    except subprocess.TimeoutExpired as error:
        raise Refused(f"the drift report was not drawn within {timeout_s:g} s") from error
    if done.returncode != 0 or not done.stdout:
        said = last_line(done.stderr) or f"exit code {done.returncode}"
        raise Refused(f"the drift report could not be drawn: {said}")
    return done.stdout


def last_line(stderr: bytes) -> str:
    lines = stderr.decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""


def _sampled(columns: Columns) -> dict[str, list[Any]]:
    """Evenly over time; NaN and infinity as null, which is all JSON has."""
    rows = max((len(values) for values in columns.values()), default=0)
    step = -(-rows // MOST_ROWS) or 1
    return {name: [_plain(v) for v in values[::step]] for name, values in columns.items()}


def _plain(value: Any) -> float | str | None:
    if value is None or value != value or value in (float("inf"), float("-inf")):
        return None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def page(work: Mapping[str, Any]) -> str:
    """In the child process."""
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.legacy.calculations.stattests import StatTest, register_stattest
    from evidently.legacy.core import ColumnType
    from evidently.presets import DataDriftPreset

    reference, recent, left_out = frames(pd.DataFrame(work["reference"]), pd.DataFrame(work["recent"]))
    said = f"<p>{html.escape(work['sentence'])}</p>"
    if left_out:
        said += f"<p>Not drawn, without values of one type on both sides: {html.escape(', '.join(left_out))}</p>"
    if not len(reference.columns):
        return f"<!DOCTYPE html><meta charset='utf-8'><title>Drift report</title><body>{said}</body>"
    methods = {}
    for name in reference.columns:
        p, drifted = work["verdicts"].get(name, [None, False])
        score = 1.0 if p is None else p
        both = [ColumnType.Numerical, ColumnType.Categorical]
        test = StatTest(name=f"{TEST}: {name}", display_name=TEST, allowed_feature_types=both)
        register_stattest(test, lambda *_, answer=(score, drifted): answer)
        methods[name] = test.name
    numeric = [name for name in reference.columns if reference[name].dtype.kind == "f"]
    definition = DataDefinition(numerical_columns=numeric, categorical_columns=[name for name in reference.columns if name not in numeric])
    # One column that drifted is drift.
    report = Report([DataDriftPreset(per_column_method=methods, drift_share=1 / len(methods), include_tests=False)])
    drawn = report.run(
        Dataset.from_pandas(recent, data_definition=definition), Dataset.from_pandas(reference, data_definition=definition)
    ).get_html_str(as_iframe=False)
    return str(drawn).replace("<body>", f"<body>{said}", 1)


def frames(reference: pd.DataFrame, recent: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """The columns that can be drawn, numbers as float64 and the rest as text; and the names of the others."""
    names, left_out = sorted({*reference.columns, *recent.columns}), []
    for name in names:
        kinds = [_kind(frame[name]) if name in frame else None for frame in (reference, recent)]
        if kinds[0] is None or kinds[0] != kinds[1]:
            left_out.append(name)
        else:
            for frame in (reference, recent):
                frame[name] = frame[name].astype(kinds[0])
    keep = [name for name in names if name not in left_out]
    return reference[keep], recent[keep], left_out


def _kind(column: pd.Series[Any]) -> str | None:
    """None: no value, or numbers and text mixed."""
    known = column.dropna()
    kinds = {isinstance(v, str) for v in known}
    return None if len(kinds) != 1 else "object" if kinds == {True} else "float64"


if __name__ == "__main__":
    sys.stdout.buffer.write(page(json.load(sys.stdin)).encode())
