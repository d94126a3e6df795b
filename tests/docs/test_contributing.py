"""CONTRIBUTING.md: every row of "Where a new ... goes" leads to a file to copy and to a test, and every file is there."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import ROOT, Page

CONTRIBUTING = Page(ROOT / "CONTRIBUTING.md")
ROWS = CONTRIBUTING.table("Where a new ... goes")
FILE = re.compile(r"`((?:flows|tasks|mlrunbook|tests|deployments|docs|benchmarks)(?:/[\w.-]+)*/?|runbook\.yaml|README\.md)`")
ASKED_FOR = (
    *("alert format", "finding", "cause", "action", "adapter", "message", "threshold"),
    *("metric", "rule", "audit line", "record", "flow", "step"),
)
BY_HAND = ("postgres.py", "processes.py", "charts.py", "sequential.py", "outbox.py")


def test_it_says_where_everything_goes_that_a_team_adds() -> None:
    new = " ".join(row[0].lower() for row in ROWS)
    assert [one for one in ASKED_FOR if one not in new] == []


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_what_to_copy_what_to_touch_and_the_test_exist(row: list[str]) -> None:
    _, copy, touch, test = row
    assert FILE.search(copy), "it names no file to copy"
    assert any(path.startswith("tests/") and path.endswith(".py") for path in FILE.findall(test)), "it names no test"
    assert [path for cell in (copy, touch, test) for path in FILE.findall(cell) if not (ROOT / path).exists()] == []


def test_every_part_by_hand_is_named_with_its_reason() -> None:
    section = CONTRIBUTING.section("By hand, and why")
    assert [name for name in BY_HAND if name not in section] == []
