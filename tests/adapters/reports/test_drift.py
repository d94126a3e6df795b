"""The page that Evidently draws, in a real child process: one page with everything in it that a prediction log may hold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mlrunbook.adapters.reports.drift import draw
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.evaluation.drift import Reference

N = 300
rng = np.random.default_rng(3)
DRAWN = {
    "moved": (rng.normal(40, 10, N), rng.normal(60, 10, N)),
    "with_nulls": ([None if i % 3 == 0 else float(i % 7) for i in range(N)], [None if i % 2 else 1.0 for i in range(N)]),
    "with_infinity": ([math.inf if i % 9 == 0 else float(i) for i in range(N)], [float(i) for i in range(N)]),
    "constant": ([1.0] * N, [1.0] * N),
    "new_kind": (["L", "M"] * (N // 2), ["L", "M", "X"] * (N // 3)),
    "one_kind": (["a"] * N, ["a"] * N),
    "many_kinds": ([f"id {i}" for i in range(N)], [f"id {i + 7}" for i in range(N)]),
    "switch": ([i % 2 == 0 for i in range(N)], [i % 3 == 0 for i in range(N)]),
    "<b>named</b>": ([0.1] * N, list(rng.normal(size=N))),
}
LEFT_OUT = {
    "all_null_now": ([1.0] * N, [None] * N),
    "all_null_then": ([None] * N, [1.0] * N),
    "all_null": ([math.nan] * N, [None] * N),
    "other_type": ([1.0] * N, ["1.0"] * N),
    "mixed": ([1.0, "x"] * (N // 2), [1.0] * N),
}


def test_a_page_is_drawn_whatever_the_columns_hold_and_says_what_we_found() -> None:
    columns = DRAWN | LEFT_OUT
    reference = {name: list(old) for name, (old, _) in columns.items()} | {"gone": [1.0] * N}
    recent = {name: list(new) for name, (_, new) in columns.items()} | {"come": [1.0] * N}
    verdict = Reference.of(reference).compare(recent)
    page = draw(reference, recent, verdict, timeout_s=220).decode()
    assert len(page) > 1_000_000
    body = page.partition("<body>")[2]
    assert verdict.columns["moved"].found
    assert body.startswith("<p>the schema changed: ")
    assert "the distribution moved for " in body[:3000]
    assert f"<p>Not drawn, without values of one type on both sides: {', '.join(sorted([*LEFT_OUT, 'gone', 'come']))}</p>" in body
    assert "&lt;b&gt;named&lt;/b&gt;" in body.partition("<p>Not drawn")[0]
    for name in DRAWN:
        assert f'"column_name": "{name}"' in page
    assert "KS or chi-square, Benjamini-Hochberg" in page


def test_a_page_that_takes_too_long_is_given_up() -> None:
    columns = {"torque": [1.0, 2.0]}
    with pytest.raises(Refused, match=r"was not drawn within 0\.01 s"):
        draw(columns, columns, Reference.of(columns).compare(columns), timeout_s=0.01)
