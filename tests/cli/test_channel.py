"""`mlrunbook channel`: who is reached by what, and a real message through it. There is no gateway."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters.channels.test_notifier import Receiver
from tests.adapters.channels.test_pagers import PagerDuty
from tests.cli.conftest import Cli, one_line

SECRETS = ("s3cret", "127.0.0.1", "/hook", "hook")


@pytest.fixture
def alone(tmp_path: Path) -> Cli:
    """A machine where nothing runs."""
    return Cli({"MLRUNBOOK_DATA_DIR": str(tmp_path / "data"), "MLRUNBOOK_HOME": str(tmp_path)})


@pytest.fixture
def chat() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.stop()


@pytest.fixture
def pagerduty() -> Iterator[PagerDuty]:
    service = PagerDuty()
    yield service
    service.stop()


def test_the_list_names_users_and_what_is_not_set_and_never_an_address(alone: Cli, chat: Receiver) -> None:
    done = alone("channel", "list", "--json", MLRUNBOOK_CHANNEL_PAGE=chat.address)
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["page"]["addressIsSet"] is True
    assert "On-Call ML Engineer" in rows["page"]["usedBy"]
    assert rows["incidents"]["addressIsSet"] is False
    assert rows["incidents"]["variable"] == "MLRUNBOOK_CHANNEL_INCIDENTS"
    shown = alone("channel", "list", MLRUNBOOK_CHANNEL_PAGE=chat.address)
    assert shown.exit_code == 0
    assert not [secret for secret in SECRETS if secret in done.stdout + shown.stdout]


def test_a_test_message_arrives_says_who_asked_and_leaves_no_trace_here(alone: Cli, chat: Receiver, tmp_path: Path) -> None:
    done = alone("channel", "test", "incidents", MLRUNBOOK_CHANNEL_INCIDENTS=chat.address, LOGNAME="lee")
    assert done.exit_code == 0, done.output
    (got,) = chat.received
    assert got["title"].startswith("[TEST]")
    assert "lee on " in got["message"]
    assert re.search(r"at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", got["message"])
    assert done.stdout.startswith("delivered by incidents: JSON accepted it\n")
    assert not (tmp_path / "data").exists(), "an empty home stays one, so that a backup can be restored into it"


def test_what_the_service_answered_is_said_without_the_address(alone: Cli, chat: Receiver) -> None:
    chat.status = 503
    done = alone("channel", "test", "incidents", MLRUNBOOK_CHANNEL_INCIDENTS=chat.address)
    assert done.exit_code == 1
    said = one_line(done.stderr)
    assert "503" in said
    assert "MLRUNBOOK_CHANNEL_INCIDENTS" in said
    assert not [secret for secret in SECRETS if secret in said]


@pytest.mark.parametrize(
    "address", ["garbage-s3cret", "nosuch://s3cret@host-s3cret/hook", "slack://s3cret", "json://s3cret:pass word@/hook"]
)
def test_an_address_that_is_none_is_named_by_its_variable_alone(alone: Cli, address: str) -> None:
    done = alone("channel", "test", "page", MLRUNBOOK_CHANNEL_PAGE=address)
    assert done.exit_code == 1
    assert "MLRUNBOOK_CHANNEL_PAGE" in one_line(done.stderr)
    assert not [secret for secret in SECRETS if secret in done.output]


def test_a_setting_that_is_missing_and_a_name_that_is_none_are_said(alone: Cli) -> None:
    done = alone("channel", "test", "page")
    assert done.exit_code == 1
    assert "MLRUNBOOK_CHANNEL_PAGE is not set here" in one_line(done.stderr)
    done = alone("channel", "test", "pager")
    assert done.exit_code == 1
    assert "page" in one_line(done.stderr)


def test_a_pager_is_rung_only_where_that_is_said_and_nobody_stays_paged(alone: Cli, pagerduty: PagerDuty) -> None:
    env = {"MLRUNBOOK_CHANNEL_PAGE": pagerduty.address}
    done = alone("channel", "test", "page", **env)
    assert (done.exit_code, pagerduty.events) == (1, [])
    assert "--page" in one_line(done.stderr)
    done = alone("channel", "test", "page", "--page", "--hold-s", "0", **env)
    assert done.exit_code == 0, done.output
    assert [e["event_action"] for e in pagerduty.events] == ["trigger", "resolve"]
    assert len({e["dedup_key"] for e in pagerduty.events}) == 1
    assert "Event processed" in done.stdout
    assert not [part for part in (pagerduty.address, os.path.basename(pagerduty.address)) if part in done.output]
