"""The report of an audit: one page that needs nothing else, with all text escaped, and charts that draw what is there."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from markupsafe import escape

from mlrunbook.adapters.reports.audit import render
from mlrunbook.adapters.reports.charts import WIDTH, draw, number
from mlrunbook.domain.audits.period import Kind
from mlrunbook.domain.audits.section import Audit, Bars, Chart, Estimate, Intervals, Lines, Matrix, Section, Table, Verdict
from mlrunbook.domain.evaluation.performance import Confusion
from tests.domain.audits.audit_worlds import MODEL, NOW, PERIODS, sections

CHROMIUM = Path("/usr/bin/chromium")
HOSTILE = "<script>alert(1)</script> \"'&\x1b[31m\u202e"
DAYS = tuple(date(2025, 12, 1) + timedelta(days=i) for i in range(5))


def audit(kind: Kind, past: str) -> Audit:
    before = {s.key: Verdict.PASS for s in sections(kind, past)}
    return Audit(MODEL, PERIODS[kind], NOW, sections(kind, past), before, "the last one", {"version": "v1.5.0"})


def points(svg: str) -> list[list[tuple[float, float]]]:
    lines = re.findall(r'<polyline points="([^"]+)"', svg)
    return [[tuple(map(float, p.split(","))) for p in line.split()] for line in lines]  # type: ignore[misc]


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("past", ["nothing", "day", "year"])
def test_a_report_needs_nothing_from_elsewhere_and_tells_every_section(kind: Kind, past: str) -> None:
    made = audit(kind, past)
    page = render(made).decode()
    assert not re.search(r"<script|<link|<img|@import|url\(|\ssrc=|javascript:", page)
    assert not [url for url in re.findall(r'href="([^"]+)"', page) if not url.startswith("#")]
    for one in made.sections:
        assert f'<section id="{one.key}">' in page
        assert escape(one.sentence)[1:140].partition("`")[0] in page
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        root = ET.fromstring(svg)
        assert root.get("role") == "img"
        assert root[0].tag.endswith("title")
        assert root[0].text
        assert root[1].text, "who cannot see the chart reads what is in it"


def test_hostile_text_is_shown_and_never_obeyed() -> None:
    charts: tuple[Chart, ...] = (
        Lines(HOSTILE, DAYS, {HOSTILE: (1.0, 2.0, 3.0, 4.0, 5.0)}, HOSTILE, 3.0, HOSTILE),
        Intervals(HOSTILE, (Estimate(HOSTILE, 0.5, 0.4, 0.6, 0.55),), HOSTILE),
        Bars(HOSTILE, (HOSTILE,), {HOSTILE: (1.0,), "other": (2.0,)}, HOSTILE, 1.0, HOSTILE),
        Matrix(HOSTILE, Confusion(1, 2, 3, 4)),
    )
    table = Table(HOSTILE, (HOSTILE,), ((HOSTILE,),))
    one = Section("hostile", HOSTILE, Verdict.FAIL, HOSTILE, charts, (table,), group=HOSTILE, incident_id=HOSTILE, note=HOSTILE)
    made = replace(audit(Kind.WEEKLY, "nothing"), model=HOSTILE, sections=(one,), before_name=HOSTILE, facts={HOSTILE: HOSTILE})
    page = render(made).decode()
    assert "<script" not in page
    assert "\x1b" not in page
    assert "\u202e" not in page
    assert page.count("&lt;script&gt;") > 15


def test_a_line_is_not_drawn_over_days_of_which_nothing_is_known() -> None:
    svg = draw(Lines("F1", DAYS, {"F1": (0.8, 0.8, None, 0.7, 0.7)}))
    assert [len(run) for run in points(svg)] == [2, 2]
    days = (*DAYS[:2], *DAYS[3:])  # the day is not in the history at all
    assert [len(run) for run in points(draw(Lines("F1", days, {"F1": (0.8, 0.8, 0.7, 0.7)})))] == [2, 2]


def test_higher_is_higher_and_everything_stays_inside_the_picture() -> None:
    svg = draw(Lines("latency", DAYS, {"p95": (10.0, 20.0, 30.0, 25.0, 40.0)}, " ms", limit=35.0))
    (run,) = points(svg)
    assert sorted(range(5), key=lambda i: -run[i][1]) == [0, 1, 3, 2, 4]
    box = ET.fromstring(svg).get("viewBox", "").split()
    assert all(0 <= x <= WIDTH and 0 <= y <= float(box[3]) for x, y in run)


@pytest.mark.parametrize(("limit", "drawn"), [(50.0, True), (2000.0, False)])
def test_a_limit_far_above_all_values_is_said_and_does_not_press_them_flat(limit: float, drawn: bool) -> None:
    svg = draw(Lines("latency", DAYS, {"p95": (20.0, 30.0, 25.0, 28.0, 22.0)}, " ms", limit))
    (run,) = points(svg)
    assert max(y for _, y in run) - min(y for _, y in run) > 15
    assert ("above the chart" in svg) is not drawn


def test_where_nothing_ever_failed_the_limit_is_above_the_line_of_zeros() -> None:
    svg = draw(Lines("error rate", DAYS, {"errors": (0.0,) * 5}, " %", 1.0))
    (run,) = points(svg)
    assert len({y for _, y in run}) == 1
    assert "above the chart" not in svg
    assert "limit 1 %" in svg


def test_a_single_day_is_a_dot_in_the_middle() -> None:
    svg = draw(Lines("F1", DAYS[:1], {"F1": (0.8,)}))
    assert svg.count("<circle") == 1


def test_nothing_at_all_is_said_in_words() -> None:
    assert "nothing to draw yet" in draw(Lines("F1", (), {"F1": ()}))
    assert "nothing to draw yet" in draw(Bars("causes", (), {"high": ()}))


@pytest.mark.parametrize(("value", "words"), [(0, "0"), (0.034, "0.034"), (1.5, "1.5"), (28, "28"), (1234.4, "1234"), (2.0, "2")])
def test_numbers_show_what_matters(value: float, words: str) -> None:
    assert number(value) == words


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists(), reason="Debian's Chromium is not installed")
def test_the_summary_of_the_longest_report_prints_on_one_page(tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    file = tmp_path / "audit.html"
    file.write_bytes(render(audit(Kind.ANNUAL, "year")))
    with sync_playwright() as browsers:
        page = browsers.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"]).new_page()
        page.goto(file.as_uri())
        whole = page.pdf(prefer_css_page_size=True)
        page.evaluate("document.querySelectorAll('h2, section, footer').forEach(e => e.remove())")
        summary = page.pdf(prefer_css_page_size=True)
    pages = [len(re.findall(rb"/Type\s*/Page[^s]", pdf)) for pdf in (summary, whole)]
    assert pages[0] == 1
    assert pages[1] > 3
