"""Step 6 from the command line: read, mend and sign the review, and see its action items through."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete

from mlrunbook.store import action_items, tables
from tests.cli.conftest import Cli, one_line


@pytest.fixture
def closed(cli: Cli, model: str) -> str:
    """A closed incident of medium severity that nothing measures, with its drafted review."""
    args = ("--severity", "medium", "--type", "infrastructure", "--description", "The model server restarts")
    incident_id = cli("report", "--model", model, *args).stdout.split()[0]
    assert cli("incidents", "close", incident_id, "--reason", "mended by hand").exit_code == 0
    return incident_id


def test_an_item_is_listed_done_and_gone_from_the_list(cli: Cli, closed: str) -> None:
    assert cli("actions", "add", closed, "--action", "Add a probe", "--owner", "ml_team_lead", "--due", "2030-01-31").exit_code == 0
    item = next(i for i in json.loads(cli("actions", "list", "--json").stdout) if i["action"] == "Add a probe")
    assert "Add a probe (ML Team Lead)" in " ".join(cli("actions", "list").stdout.split())
    assert cli("actions", "done", str(item["id"]), "--note", "in the chart").stdout == f"action item {item['id']} is done: Add a probe\n"
    assert "Add a probe" not in cli("actions", "list").stdout
    assert "Add a probe (ML Team Lead): in the chart" in " ".join(cli("actions", "list", "--all").stdout.split())


def test_a_list_longer_than_a_page_is_whole(cli: Cli, closed: str, engine: Engine) -> None:
    with engine.begin() as conn:
        for n in range(1_200):
            action_items.add(conn, closed, f"Do number {n}", owner_role="ml_team_lead", due_at=datetime(2031, 1, 1, tzinfo=UTC))
    listed = json.loads(cli("actions", "list", "--json").stdout)
    assert len({i["id"] for i in listed}) == len(listed)
    assert {f"Do number {n}" for n in range(1_200)} <= {i["action"] for i in listed}
    with engine.begin() as conn:
        conn.execute(delete(tables.action_items).where(tables.action_items.c.action.startswith("Do number ")))


def test_dropping_without_a_word_is_refused(cli: Cli, closed: str) -> None:
    item = json.loads(cli("actions", "list", "--json").stdout)[0]
    assert "say why it need not be done" in one_line(cli("actions", "drop", str(item["id"]), "--note", " ").stderr)


def test_the_review_is_mended_and_signed_by_two(cli: Cli, closed: str, tmp_path: Path, token: Callable[..., str]) -> None:
    text = cli("incidents", "review", closed).stdout
    mended = tmp_path / "review.md"
    mended.write_text(text.replace("To be answered in the review meeting", "A probe was missing"))
    assert "A probe was missing" in cli("incidents", "review", closed, "--from", str(mended)).stdout
    assert cli("incidents", "sign-review", closed, "--as", "reviewed").stdout == f"the review of {closed} is reviewed\n"
    assert "somebody else" not in cli("incidents", "review", closed).stdout
    manager = token("the manager", role="engineering_manager")
    assert cli("incidents", "sign-review", closed, "--as", "approved", MLRUNBOOK_GATEWAY_TOKEN=manager).exit_code == 0
    assert "- **Approved By:** the manager (Engineering Manager), " in cli("incidents", "review", closed).stdout


def test_a_file_that_is_not_there_is_named(cli: Cli, closed: str) -> None:
    assert "cannot read /nowhere.md" in one_line(cli("incidents", "review", closed, "--from", "/nowhere.md").stderr)
