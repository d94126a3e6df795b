"""The commands of the README and the how-to pages, typed into a shell beside a running stack, as a reader would.

They are about a model that the platform does not know: nothing that serves is changed, and one stack serves all tests.
"""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert

from mlrunbook.base.db import transaction
from mlrunbook.domain.actions import Path as ResolutionPath
from mlrunbook.domain.actions import Plan, PlanKind, RollBack
from mlrunbook.local.platform.tables import models
from mlrunbook.store import incidents, plans, records
from tests.docs.pages import README, ROOT, RUNBOOK, Page
from tests.waiting import until

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from mlrunbook.local.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.prefect]

MODEL = "pump_of_the_documentation"
SIGN_IN = ". .venv/bin/activate; set -a; . ~/.local/share/mlrunbook/env; set +a; "
# `make demo` has its own end-to-end test, `make test` is this one, and `mlrunbook up` is the stack that runs.
NOT_TYPED = {"make demo", "make test", "mlrunbook up"}
APPROVE, OPERATE, ALERTMANAGER = (Page(ROOT / "docs/how-to" / f"{name}.md") for name in ("approve", "operate", "receive-alerts"))


@dataclass
class Shell:
    """A reader's terminal: home and working folder of its own, a link to the data folder where the pages say it is."""

    folder: Path
    names: dict[str, str] = field(default_factory=dict)  # what a page calls something -> what it is called here

    def type(self, command: str) -> str:
        """Standard output. Whoever is asked says yes."""
        for theirs, ours in self.names.items():
            command = re.sub(rf"\b{theirs}\b", ours, command)
        terminal, stdin = pty.openpty()
        os.write(terminal, b"y\n")
        env = {"HOME": str(self.folder), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        try:
            done = subprocess.run(
                ["bash", "-euc", SIGN_IN + command],
                cwd=self.folder,
                env=env,
                stdin=stdin,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
        finally:
            os.close(terminal)
            os.close(stdin)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def shell(stack: Stack, store: Engine, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    with transaction(store) as conn:  # a report on a model that nobody knows is refused
        conn.execute(insert(models).values(name=MODEL, created_at=datetime.now(UTC)))
    folder = tmp_path_factory.mktemp("reader")
    (folder / ".local/share").mkdir(parents=True)
    (folder / ".local/share/mlrunbook").symlink_to(stack.data)
    (folder / ".venv").symlink_to(sys.prefix)
    return Shell(folder, {"predictive_maintenance": MODEL})


@pytest.fixture(scope="module")
def store(stack: Stack) -> Iterator[Engine]:
    from mlrunbook.base import db

    engine = db.engine(stack.database_url)
    yield engine
    engine.dispose()


def waiting_plan(store: Engine, incident_id: str) -> str:
    """The digest of a rollback that waits for a decision."""
    back = RollBack(MODEL, "v1.5.0", reason="performance degradation")
    plan = Plan(incident_id, PlanKind.RESOLUTION, MODEL, (back,), (f"of {datetime.now(UTC)}",), path=ResolutionPath.ROLLBACK)
    with transaction(store) as conn:
        return plans.propose(conn, plan, now=datetime.now(UTC))


def is_reviewed(store: Engine, incident_id: str) -> Callable[[], bool]:
    def look() -> bool:
        with transaction(store) as conn:
            return not incidents.get(conn, incident_id).status.is_open and records.get(conn, incident_id, "review") is not None

    return look


def test_every_command_of_the_readme_does_what_it_says(shell: Shell, store: Engine) -> None:
    typed: dict[str, str] = {}
    incident_id = ""
    for command in README.shell_commands:
        if command in NOT_TYPED:
            continue
        if "incidents approve" in command:
            waiting_plan(store, incident_id)
        if "incidents review" in command:
            until(is_reviewed(store, incident_id))
        said = typed[command] = shell.type(command)
        if command.startswith("mlrunbook report"):
            incident_id = said.split()[0]
            shell.names["incident_1"] = incident_id
    keys = ("policy check", "curl", "approve", "incidents review", "verify", "close")
    told = {key: said for command, said in typed.items() for key in keys if key in command}
    assert told["policy check"].endswith("no errors\n")
    assert json.loads(told["curl"])["joined"] is True
    assert json.loads(told["curl"])["id"] == incident_id
    assert "approved by ML Team Lead" in told["approve"]
    assert told["incidents review"].startswith(f"# Post-Incident Review: {incident_id}")
    assert "Restored the sensor feed" in told["incidents review"]
    assert told["verify"].startswith("intact: ")
    assert told["close"] == f"{incident_id} is closed\n"


def test_a_plan_is_decided_with_curl_as_the_page_says(shell: Shell, store: Engine) -> None:
    report = 'mlrunbook report --model predictive_maintenance --severity low --type compliance --description "an audit question"'
    incident_id = shell.type(report).split()[0]
    digest = waiting_plan(store, incident_id)
    shell.names |= {"incident_1": incident_id, "29436b06ead0": digest[:12]}
    create = next(c for c in APPROVE.shell_commands if c.startswith("mlrunbook token create"))
    decide = next(c for c in APPROVE.shell_commands if c.startswith("curl "))
    shell.type(create)
    answer = json.loads(shell.type(decide))
    assert answer["planDigest"] == digest
    assert answer["planApproved"] is True
    assert (answer["approver"], answer["door"], answer["verified"]) == ("ML Team Lead", "rest", True)


def test_the_commands_of_the_operating_page_work(shell: Shell) -> None:
    commands = list(OPERATE.shell_commands)
    for command in OPERATE.commands_of("Backup") + OPERATE.commands_of(
        "Restore"
    ):  # typed in tests/flows/test_restore.py, on a second stack
        commands.remove(command)
    heads = [command for command in commands if "--head" in command]  # of an incident that is not here
    typed = {command: shell.type(command) for command in commands if command not in (*NOT_TYPED, *heads)}
    health = next(said for command, said in typed.items() if command.startswith("curl "))
    assert json.loads(health)["status"] == "ok"
    assert "On-Call" in typed["mlrunbook token list"]
    assert "MLRUNBOOK_CHANNEL_PAGE" in typed["mlrunbook channel list"]


def test_a_token_for_alertmanager_opens_the_webhook_and_nothing_else(shell: Shell) -> None:
    create = next(command for command in ALERTMANAGER.shell_commands if command.startswith("mlrunbook token create"))
    typed = {command: shell.type(command) for command in ALERTMANAGER.shell_commands}
    assert "nothing was opened" in typed["mlrunbook webhook test --format grafana"]
    assert json.loads(next(said for command, said in typed.items() if "/api/v1/changes" in command))["ref"] == "etl-7"
    assert (shell.folder / create.rpartition("> ")[2]).exists()
    ask = 'curl -sS -o answer -w "%{{http_code}}" -H @- {} <<< "Authorization: Bearer $(cat alertmanager.token)"'
    message = """-d '{"version": "4", "alerts": []}' -H "Content-Type: application/json" """
    assert shell.type(ask.format(message + '"$MLRUNBOOK_GATEWAY_URL/webhooks/alertmanager"')) == "202"
    assert shell.type(ask.format('"$MLRUNBOOK_GATEWAY_URL/api/v1/incidents"')) == "403"


def test_the_reads_of_the_quick_reference_answer(shell: Shell) -> None:
    commands = [row[2].strip("`") for row in RUNBOOK.table("Quick Reference Commands")]
    answers = {command: json.loads(shell.type(command)) for command in commands if command.startswith("curl ")}
    assert len(answers) == 3
    for command, answer in answers.items():  # nobody serves this model: its status and its figures still have its name
        assert answer == {"alerts": []} if '/alerts"' in command else answer["model"] == MODEL
    assert shell.type(next(c for c in commands if c.startswith("tail "))) is not None
    assert shell.type("mlrunbook incidents list --open") is not None


def test_the_rollback_of_the_quick_reference_starts_a_run(shell: Shell) -> None:
    command = next(row[2].strip("`") for row in RUNBOOK.table("Quick Reference Commands") if row[0] == "Rollback model")
    assert "Created flow run" in shell.type(command)
