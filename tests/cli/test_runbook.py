"""`mlrunbook runbook`: owner, quarterly review and version history of the page."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlrunbook.base.settings import settings
from mlrunbook.cli.main import app
from mlrunbook.cli.runbook import PAGE
from tests.docs.pages import ROOT


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    page = tmp_path / PAGE
    page.parent.mkdir(parents=True)
    shutil.copy(ROOT / PAGE, page)
    monkeypatch.setenv("MLRUNBOOK_HOME", str(tmp_path))
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


def reviewed(checkout: Path, day: str) -> None:
    page = checkout / PAGE
    lines = [f"- **Last Reviewed:** {day}" if row.startswith("- **Last Reviewed:**") else row for row in page.read_text().splitlines()]
    page.write_text("\n".join(lines))


def git(checkout: Path, *words: str) -> None:
    who = ["-c", "user.name=ML Team", "-c", "user.email=ml-lead@example.com"]
    subprocess.run(["git", "-C", str(checkout), *who, *words], check=True, capture_output=True)


def test_the_status_names_the_owner_and_the_next_review(checkout: Path) -> None:
    reviewed(checkout, datetime.now(UTC).date().isoformat())
    said = CliRunner().invoke(app, ["runbook", "status"])
    assert said.exit_code == 0
    assert "by the ML Team Lead" in said.output


def test_an_overdue_review_fails_a_script(checkout: Path) -> None:
    reviewed(checkout, "2020-01-01")
    said = CliRunner().invoke(app, ["runbook", "status"])
    assert said.exit_code == 1
    assert "overdue" in said.output


def test_each_commit_to_the_folder_is_a_version(checkout: Path) -> None:
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "Initial version")
    reviewed(checkout, "2026-12-01")
    git(checkout, "commit", "-qam", "Reviewed | the threshold is 0.4 now")
    said = CliRunner().invoke(app, ["runbook", "history", "--markdown"]).output.splitlines()
    assert [row.split(" | ")[0] for row in said[2:]] == ["| 1.1", "| 1.0"]
    assert "Reviewed \\| the threshold" in said[2]
    assert said[2].endswith("| ML Team |")


def test_without_git_it_says_where_to_run_it(checkout: Path) -> None:
    said = CliRunner().invoke(app, ["runbook", "history"])
    assert said.exit_code == 1
    assert "no Git checkout" in said.output
