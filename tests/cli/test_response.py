"""Severity, hand-over and going on from the command line."""

from __future__ import annotations

import json

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
