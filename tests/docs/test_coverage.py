"""docs/runbooks/coverage.md: every place it names exists."""

from __future__ import annotations

import re

import pytest

from tests.docs.pages import ROOT, Page

COVERAGE = Page(ROOT / "docs/runbooks/coverage.md")
SECTIONS = [
    "Incident Classification",
    "Escalation Matrix",
    "Step 1: Incident Detection and Triage",
    "Step 2: Immediate Containment",
    "Step 3: Investigation",
    "Step 4: Resolution",
    "Step 5: Communication",
    "Step 6: Post-Incident Review",
    "Monitoring and Prevention",
    "Appendix: Quick Reference Commands",
]
PLACE = re.compile(r"((?:flows|tasks|mlrunbook|tests|deployments|docs)/[\w./-]+|runbook\.yaml)(?:::(\w+))?")
ROWS = [(section, row) for section in SECTIONS for row in COVERAGE.table(section)]


def exists(place: str) -> bool:
    found = PLACE.fullmatch(place)
    if found is None or not (file := ROOT / found[1]).is_file():
        return False
    name = found[2]
    return name is None or re.search(rf"(?:\bdef |\bclass |^){name}\b", file.read_text(encoding="utf-8"), re.MULTILINE) is not None


def places(cell: str) -> list[str]:
    return [span for span in re.findall(r"`([^`]+)`", cell) if PLACE.match(span)]


def test_every_block_of_the_runbook_has_its_table() -> None:
    assert [title for level, title in COVERAGE.headings if level == 2] == [*SECTIONS, "Gaps"]
    assert all(len(COVERAGE.table(section)) >= 3 for section in SECTIONS)


@pytest.mark.parametrize(("section", "row"), ROWS, ids=[f"{section}-{row[0][:40]}" for section, row in ROWS])
def test_what_carries_a_line_out_and_its_test_exist(section: str, row: list[str]) -> None:
    line, lives, test = row
    assert places(lives) or lives == "the same" or lives.startswith("["), f"{line}: names no place"
    assert [place for place in places(lives) if not exists(place)] == []
    assert [place.partition("::")[0].startswith("tests/") and exists(place) for place in places(test)] == [True]
    assert "::test_" in test


def test_the_check_can_fail() -> None:
    assert not exists("mlrunbook/nowhere.py")
    assert not exists("mlrunbook/response/lifecycle/opening.py::nobody")
    assert exists("runbook.yaml::response_min")
