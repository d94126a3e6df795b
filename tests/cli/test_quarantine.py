"""`mlrunbook quarantine` and `mlrunbook webhook test` against a real gateway."""

from __future__ import annotations

import json

import httpx
import pytest

from mlrunbook.cli.webhook import FormatName
from tests.cli.conftest import Cli, one_line

HOSTILE = "\x1b[31mred\x1b[0m\u202e [bold]x[/bold]"


def quarantine_one(cli: Cli, text: str = "odd") -> int:
    headers = {"Authorization": f"Bearer {cli.env['MLRUNBOOK_GATEWAY_TOKEN']}"}
    message = {"version": "1", "alerts": [{"labels": {"alertname": text}, "status": "firing", "startsAt": "2026-03-02T09:00:00Z"}]}
    answer = httpx.post(f"{cli.env['MLRUNBOOK_GATEWAY_URL']}/webhooks/grafana", json=message, headers=headers)
    assert answer.json()["quarantined"] == 1
    listed = json.loads(cli("quarantine", "list", "--source", "grafana", "--json").stdout)
    return int(listed["quarantined"][0]["number"])


def test_what_could_not_be_used_is_listed_and_shown_without_what_a_terminal_obeys(cli: Cli) -> None:
    number = quarantine_one(cli, HOSTILE)
    listed = cli("quarantine", "list").stdout
    assert "names no model" in " ".join(listed.split())
    shown = cli("quarantine", "show", str(number)).stdout
    assert "not used because: the alert names no model" in shown
    assert not {"\x1b", "\u202e"} & set(listed + shown)


def test_a_long_list_goes_on_where_it_says(cli: Cli) -> None:
    numbers = [quarantine_one(cli, f"odd {n}") for n in range(3)]
    first = cli("quarantine", "list", "--limit", "2")
    assert f"older ones: add --before {numbers[1]}" in first.stderr
    rest = json.loads(cli("quarantine", "list", "--before", str(numbers[1]), "--json").stdout)
    assert rest["quarantined"][0]["number"] == numbers[0]


def test_a_replay_that_cannot_work_says_why(cli: Cli) -> None:
    done = cli("quarantine", "replay", str(quarantine_one(cli)))
    assert done.exit_code != 0
    assert "still cannot be used: the alert names no model" in one_line(done.stderr)
    assert "999999" in one_line(cli("quarantine", "show", "999999").stderr)


@pytest.mark.parametrize("form", list(FormatName))
def test_a_sample_of_each_format_reaches_the_gateway(cli: Cli, form: FormatName) -> None:
    done = cli("webhook", "test", "--format", form)
    assert done.exit_code == 0, done.stderr
    assert "proven by your token" in done.stdout
    assert "nothing was opened" in done.stdout
    assert "Quarantine" not in done.stdout


def test_a_sample_is_signed_where_the_secret_is_set(cli: Cli) -> None:
    """The gateway of this test runs in the same process, so both know the secret."""
    done = cli("webhook", "test", "--format", "pagerduty", MLRUNBOOK_WEBHOOK_SECRET_PAGERDUTY="a secret")
    assert (done.exit_code, "proven by the secret" in done.stdout) == (0, True)


def test_what_nobody_needs_is_discarded_with_a_reason_and_leaves_the_list(cli: Cli) -> None:
    number = quarantine_one(cli, "nothing")
    assert cli("quarantine", "discard", str(number)).exit_code == 2, "without a reason"
    done = cli("quarantine", "discard", str(number), "--reason", f"a test {HOSTILE}")
    assert (done.exit_code, f"number {number}: discarded by" in done.stdout) == (0, True)
    assert not {"\x1b", "\u202e"} & set(done.stdout)
    waiting = json.loads(cli("quarantine", "list", "--json").stdout)["quarantined"]
    assert number not in [one["number"] for one in waiting]
    assert "discarded by" in " ".join(cli("quarantine", "list", "--all").stdout.split())
    assert "a test" in cli("quarantine", "show", str(number)).stdout
    again = cli("quarantine", "replay", str(number))
    assert (again.exit_code, "was discarded by" in one_line(again.stderr)) == (1, True)
