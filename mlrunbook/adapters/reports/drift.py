"""The drift report as an HTML page, drawn by Evidently in a process of its own.

Its import takes 7 s and 290 MB, so it stays out of the flow's process, and nothing it does can take the flow with it. The verdicts on the
page are ours: Evidently's own tests would call a column drifted that we do not, and the other way round.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlrunbook.base import pages
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

    reference, recent, left_out = frames(pd.DataFrame(work["reference"]), pd.DataFrame(work["recent"]))
    said = {"sentence": work["sentence"], "left_out": left_out}
    if not len(reference.columns):
        return pages.render(__package__, "drift_nothing_drawn.html.j2", **said)
    verdicts = {_veiled(name): verdict for name, verdict in work["verdicts"].items()}
    drawn = _unveiled(_evidently(_veil(reference), _veil(recent), verdicts))
    return drawn.replace("<body>", f"<body>{pages.render(__package__, 'drift_verdict.html.j2', **said)}", 1)


def _evidently(reference: pd.DataFrame, recent: pd.DataFrame, verdicts: Mapping[str, tuple[float | None, bool]]) -> str:
    """Evidently's page, with our verdict on each column in place of its own."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    methods = {name: _method(name, *verdicts.get(name, (None, False))) for name in reference.columns}
    numeric = [name for name in reference.columns if reference[name].dtype.kind == "f"]
    definition = DataDefinition(numerical_columns=numeric, categorical_columns=[name for name in reference.columns if name not in numeric])
    # One column that drifted is drift.
    report = Report([DataDriftPreset(per_column_method=methods, drift_share=1 / len(methods), include_tests=False)])
    run = report.run(Dataset.from_pandas(recent, data_definition=definition), Dataset.from_pandas(reference, data_definition=definition))
    return str(run.get_html_str(as_iframe=False))


def _method(name: str, p: float | None, drifted: bool) -> str:
    """A drift method that answers what we found, for one column. Evidently 0.7 has nothing newer for a method of one's own: its guide to
    the current API registers one by these two names too."""
    from evidently import ColumnType
    from evidently.legacy.calculations.stattests import StatTest, register_stattest

    score = 1.0 if p is None else p
    method = StatTest(f"{TEST}: {name}", TEST, [ColumnType.Numerical, ColumnType.Categorical])
    register_stattest(method, lambda *_: (score, drifted))
    return str(method.name)


# Evidently writes names and values as JSON into a <script>, where the "</script>" of a hostile one would end it and run what follows. So it
# never sees a "<": a character that Unicode sets aside stands in for it, and becomes JSON's escape once the page is written.
_VEIL, _WRITTEN, _ESCAPED = "\ufdd0", "\\ufdd0", "\\u003c"


def _veiled(text: str) -> str:
    return text.replace("<", _VEIL)


def _veil(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.rename(columns=_veiled).apply(lambda column: column.map(_veiled, na_action="ignore") if column.dtype == object else column)


def _unveiled(page: str) -> str:
    head, body, rest = page.partition("<body>")
    return head.replace(_WRITTEN, _ESCAPED) + body + rest


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
