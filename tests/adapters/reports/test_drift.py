"""The page that Evidently draws, in a real child process: one page with everything in it that a prediction log may hold."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from mlrunbook.adapters.reports.drift import draw
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.evaluation.drift import DriftVerdict, Reference

CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = "</script><body><script>document.title='owned'</script>"
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
    HOSTILE: ([1.0, 2.0] * (N // 2), [2.0, 1.0] * (N // 2)),
    "hostile_values": (["L", HOSTILE] * (N // 2), [HOSTILE, "L"] * (N // 2)),
    "<b>named</b>": ([0.1] * N, list(rng.normal(size=N))),
}
LEFT_OUT = {
    "all_null_now": ([1.0] * N, [None] * N),
    "all_null_then": ([None] * N, [1.0] * N),
    "all_null": ([math.nan] * N, [None] * N),
    "other_type": ([1.0] * N, ["1.0"] * N),
    "mixed": ([1.0, "x"] * (N // 2), [1.0] * N),
}


COLUMNS = DRAWN | LEFT_OUT
REFERENCE = {name: list(old) for name, (old, _) in COLUMNS.items()} | {"gone": [1.0] * N}
RECENT = {name: list(new) for name, (_, new) in COLUMNS.items()} | {"come": [1.0] * N}


@pytest.fixture(scope="module")
def verdict() -> DriftVerdict:
    return Reference.of(REFERENCE).compare(RECENT)


@pytest.fixture(scope="module")
def page(verdict: DriftVerdict) -> str:
    return draw(REFERENCE, RECENT, verdict, timeout_s=220).decode()


def test_a_page_is_drawn_whatever_the_columns_hold_and_says_what_we_found(page: str, verdict: DriftVerdict) -> None:
    assert len(page) > 1_000_000
    body = page.partition("<body>")[2]
    assert verdict.columns["moved"].found
    assert body.startswith("<p>the schema changed: ")
    assert "the distribution moved for " in body[:3000]
    assert f"<p>Not drawn, without values of one type on both sides: {', '.join(sorted([*LEFT_OUT, 'gone', 'come']))}</p>" in body
    assert "&lt;b&gt;named&lt;/b&gt;" in body.partition("<p>Not drawn")[0]
    for name in DRAWN:
        assert f'"column_name": "{name}"'.replace("<", "\\u003c") in page
    assert "KS or chi-square, Benjamini-Hochberg" in page


def test_a_hostile_name_or_value_ends_no_script(page: str) -> None:
    assert "<script>document" not in page
    assert "</script><body>" not in page


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists(), reason="Debian's Chromium is not installed")
def test_a_hostile_name_is_read_in_the_table_and_does_not_run(page: str, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    file = tmp_path / "drift.html"
    file.write_text(page)
    with sync_playwright() as browsers:
        shown = browsers.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"]).new_page()
        shown.goto(file.as_uri())
        shown.get_by_placeholder("Search").fill("owned")
        shown.get_by_role("cell", name=HOSTILE, exact=True).wait_for()
        assert shown.evaluate("document.title") != "owned"


def test_where_nothing_can_be_drawn_the_page_says_so_in_words() -> None:
    columns, now = {"<b>torque": [None, None]}, {"<b>torque": [1.0, 2.0]}
    page = draw(columns, now, Reference.of(columns).compare(now), timeout_s=220).decode()
    assert "<p>Not drawn, without values of one type on both sides: &lt;b&gt;torque</p>" in page
    assert "<b>" not in page


def test_a_page_that_takes_too_long_is_given_up() -> None:
    columns = {"torque": [1.0, 2.0]}
    with pytest.raises(Refused, match=r"was not drawn within 0\.01 s"):
        draw(columns, columns, Reference.of(columns).compare(columns), timeout_s=0.01)
