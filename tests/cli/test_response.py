"""Severity, hand-over and going on from the command line."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from sqlalchemy import Engine

from mlrunbook.base.db import transaction
from mlrunbook.store import alerts
from tests.cli.conftest import Cli, one_line


def test_the_severity_is_raised_with_a_reason(cli: Cli, incident: str) -> None:
    done = cli("incidents", "severity", incident, "critical", "--reason", "a gearbox broke")
    assert (done.exit_code, done.stdout.strip()) == (0, f"{incident} is critical")
    entries = json.loads(cli("incidents", "timeline", incident, "--json").stdout)
    assert any("raises it" in e["text"] and "a gearbox broke" in e["text"] for e in entries)


def test_without_a_reason_it_is_wrong_usage(cli: Cli, incident: str) -> None:
    done = cli("incidents", "severity", incident, "critical")
    assert done.exit_code == 2
    assert "--reason" in one_line(done.stderr)


def test_a_role_is_handed_over_and_shown(cli: Cli, incident: str) -> None:
    done = cli("incidents", "handover", incident, "--to", "Night Shift", "--role", "incident_commander", "--note", "until six")
    assert (done.exit_code, done.stdout.strip()) == (0, f"{incident}: Night Shift is incident commander now")
    said = " ".join(cli("incidents", "show", incident).stdout.split())
    assert "Incident commander Night Shift (ml team lead)" in said


def test_going_on_where_nothing_has_stopped_says_so(cli: Cli, incident: str) -> None:
    done = cli("incidents", "go-on", incident)
    assert done.exit_code == 1
    assert "has not stopped" in one_line(done.stderr)


def test_silenced_alerts_are_listed(cli: Cli, engine: Engine) -> None:
    assert cli("incidents", "silenced").stdout == "no silenced alerts\n"
    now = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
    body = {
        "labels": {"alertname": "\x1b[2JDrift"},
        "model": "pump_1",
        "silenced": "silenced by the ML Team Lead: x",
        "until": now.isoformat(),
    }
    with transaction(engine) as conn:
        alerts.record(conn, alerts.Identity("alertmanager", "f", now), status="firing", body=body, now=now)
    said = cli("incidents", "silenced").stdout
    assert said.startswith("pump_1 ")
    assert "silenced by the ML Team Lead: x, until 2026-03-29T01:00" in said
    assert "\x1b" not in said
    assert json.loads(cli("incidents", "silenced", "--json").stdout)[0]["count"] == 1


def test_an_order_that_no_run_takes_is_given_all_the_same_and_says_what_follows(cli: Cli, incident: str) -> None:
    done = cli("incidents", "contain", incident, "--stop-serving", "--reason", "pumps fail", "--yes", "--wait", "0")
    assert "ordered: stop serving" in done.stdout
    assert "every prediction request fails" in done.stdout
    assert done.exit_code == 1
    assert "the next run carries it out" in one_line(done.stderr)
    entries = json.loads(cli("incidents", "timeline", incident, "--json").stdout)
    assert any("approved by the lead, ml_team_lead, by cli: pumps fail" in e["text"] for e in entries)


def test_without_a_terminal_an_order_needs_yes(cli: Cli, incident: str) -> None:
    done = cli("incidents", "contain", incident, "--halt-work-orders", "--reason", "pumps fail")
    assert done.exit_code == 1
    assert "repeat with --yes" in one_line(done.stderr)


def test_exactly_one_order_is_given(cli: Cli, incident: str) -> None:
    for orders in ((), ("--stop-serving", "--route", "v1.5.0")):
        done = cli("incidents", "contain", incident, *orders, "--reason", "pumps fail", "--yes")
        assert done.exit_code == 1
        assert "exactly one of" in one_line(done.stderr)


def test_where_nothing_is_contained_there_is_nothing_to_take_back(cli: Cli, incident: str) -> None:
    done = cli("incidents", "contain", incident, "--take-back", "--reason", "it was the sensor", "--yes")
    assert done.exit_code == 1
    assert "no containment of" in one_line(done.stderr)
