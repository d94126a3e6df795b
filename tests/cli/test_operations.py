"""Policy, tokens, schema, deployments and the services from the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from sqlalchemy import Engine

from mlrunbook.base.db import transaction
from mlrunbook.base.tokens import verify
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.local.postgres import EmbeddedPostgres
from tests.cli.conftest import COMMAND, Cli, environment, one_line


def test_an_unknown_policy_key_is_explained_by_path_and_line(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("alerts:\n  f1_drop_warning: 0.1\n  f1_drop_critcal: 0.2\n")
    done = cli("policy", "check", str(file))
    assert done.exit_code == 1
    assert done.stderr.startswith("mine.yaml:3: alerts.f1_drop_critcal: unknown key; did you mean f1_drop_critical?")


def test_every_error_of_a_policy_is_told_at_once(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "runbook.yaml").write_text("alerts:\n  f1_drop_warning: 2\nnonsense: 1\n")
    done = cli("policy", "check")
    assert done.exit_code == 1
    assert [line.split(": ")[0] for line in done.stderr.splitlines()] == ["runbook.yaml:2", "runbook.yaml:3"]


def test_the_check_of_a_policy_says_every_warning_and_succeeds(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("severity:\n  drops:\n    f1_medium: 0.3\nescalation:\n  vp_engineering:\n    channels: []\n")
    done = cli("policy", "check", str(file))
    assert done.exit_code == 0
    assert [line.split(": ")[:3] for line in done.stderr.splitlines()] == [
        ["warning", "mine.yaml:3", "severity.drops.f1_medium"],
        ["warning", "mine.yaml:6", "escalation.vp_engineering.channels"],
    ]
    assert done.stdout == f"{file}: no errors, 2 warnings\n"


def test_an_error_of_a_policy_comes_alone(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("severity:\n  drops:\n    f1_medium: 0.3\ntriage:\n  looks: 0\n")
    done = cli("policy", "check", str(file))
    assert done.exit_code == 1
    assert "warning" not in done.stderr


def test_a_missing_policy_file_says_where_to_get_one(cli: Cli, tmp_path: Path) -> None:
    done = cli("policy", "check", str(tmp_path / "none.yaml"))
    assert done.exit_code == 1
    assert "copy runbook.yaml" in one_line(done.stderr)


def test_the_repositorys_policy_has_no_errors(cli: Cli) -> None:
    done = cli("policy", "check", "runbook.yaml")
    assert (done.exit_code, done.stdout) == (0, "runbook.yaml: no errors\n")


def test_the_policy_in_force_is_shown_whole(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "runbook.yaml").write_text("alerts:\n  f1_drop_warning: 0.07\n")
    said = yaml.safe_load(cli("policy", "show").stdout)
    assert said["alerts"]["f1_drop_warning"] == 0.07
    assert said.keys() == Policy().model_dump().keys()


def test_a_token_is_created_shown_once_listed_and_revoked(cli: Cli, engine: Engine) -> None:
    made = cli("token", "create", "the lead", "--scope", "approve", "--scope", "read", "--role", "ml_team_lead")
    secret = made.stdout.strip()
    with transaction(engine) as conn:
        owner = verify(conn, secret)
    assert owner is not None
    assert (owner.name, owner.role, sorted(owner.scopes)) == ("the lead", "ml_team_lead", ["approve", "read"])
    assert secret not in made.stderr

    listed = cli("token", "list").stdout
    assert owner.token_id in listed
    assert secret not in listed
    assert all(len(line) <= 80 for line in listed.splitlines())

    assert cli("token", "revoke", owner.token_id).exit_code == 0
    with transaction(engine) as conn:
        assert verify(conn, secret) is None
    row = next(row for row in json.loads(cli("token", "list", "--json").stdout) if row["id"] == owner.token_id)
    assert row["revoked_at"]
    assert "mlrunbook token list" in one_line(cli("token", "revoke", owner.token_id).stderr)


def test_a_token_that_approves_without_a_role_says_that_it_decides_nothing(cli: Cli, engine: Engine) -> None:
    made = cli("token", "create", "nobody in particular", "--scope", "approve")
    assert made.exit_code == 0
    assert "--role ml_team_lead" in made.stderr
    assert "--role" not in cli("token", "create", "a reader", "--scope", "read").stderr


def test_a_token_is_limited_in_time_to_senders_to_models_and_belongs_to_a_person(cli: Cli, engine: Engine) -> None:
    limits = ("--expires", "90d", "--sender", "alertmanager", "--sender", "email", "--model", "pump_*", "--person", "Ann  LEE")
    made = cli("token", "create", "Ann's laptop", "--scope", "alerts", *limits)
    with transaction(engine) as conn:
        owner = verify(conn, made.stdout.strip())
    assert owner is not None
    assert (owner.person, owner.limits.senders, owner.limits.models) == ("ann lee", ("alertmanager", "email"), ("pump_*",))
    assert owner.limits.expires_at is not None
    assert timedelta(days=89) < owner.limits.expires_at - datetime.now(UTC) <= timedelta(days=90)
    row = next(row for row in json.loads(cli("token", "list", "--json").stdout) if row["id"] == owner.token_id)
    assert (row["person"], row["senders"], row["models"]) == ("ann lee", ["alertmanager", "email"], ["pump_*"])
    listed = cli("token", "list").stdout
    assert all(len(line) <= 80 for line in listed.splitlines())


@pytest.mark.parametrize(
    ("option", "value", "known"),
    [
        ("--scope", "aprove", "approve"),
        ("--role", "boss", "ml_team_lead"),
        ("--sender", "prometheus", "alertmanager"),
        ("--expires", "soon", "90d"),
        ("--expires", "0d", "90d"),
    ],
)
def test_a_scope_or_role_that_is_none_is_wrong_usage(cli: Cli, option: str, value: str, known: str) -> None:
    scope = () if option == "--scope" else ("--scope", "read")
    done = cli("token", "create", "x", *scope, option, value)
    assert done.exit_code == 2
    said = one_line(done.stderr)
    assert option in said
    assert known in said


def test_an_empty_database_is_brought_to_the_newest_schema_twice_without_harm(cli: Cli, postgres: EmbeddedPostgres) -> None:
    postgres.create_database("cli_empty")
    url = postgres.url("cli_empty")
    for _ in range(2):
        assert cli("db", "upgrade", MLRUNBOOK_DATABASE_URL=url).exit_code == 0
    assert cli("token", "list", "--json", MLRUNBOOK_DATABASE_URL=url).stdout == "[]\n"


def test_deploy_outside_a_checkout_says_how_to_name_it(cli: Cli) -> None:
    done = cli("deploy")
    assert done.exit_code == 1
    assert "MLRUNBOOK_HOME" in one_line(done.stderr)


def test_deploy_without_a_prefect_server_says_which_one_does_not_answer(cli: Cli, dead_port: int) -> None:
    here = str(Path.cwd())
    done = cli("deploy", MLRUNBOOK_HOME=here, PREFECT_API_URL=f"http://127.0.0.1:{dead_port}/api")
    assert done.exit_code == 1
    assert f"127.0.0.1:{dead_port}" in one_line(done.stderr)
    assert "PREFECT_API_URL" in one_line(cli("deploy", MLRUNBOOK_HOME=here).stderr)


def test_up_with_a_wrong_policy_says_so_before_it_starts_anything(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "runbook.yaml").write_text("nonsense: 1\n")
    command = [*COMMAND, "up", "--home", str(tmp_path / "data")]
    done = subprocess.run(command, env=environment(cli), capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "runbook.yaml:1: nonsense: unknown key" in one_line(done.stderr)
    assert not (tmp_path / "data").exists()


def test_up_on_a_port_that_is_taken_names_it_and_its_option(cli: Cli, tmp_path: Path, dead_port: int) -> None:
    command = [*COMMAND, "up", "--home", str(tmp_path / "data"), "--prefect-port", str(dead_port)]
    env = environment(cli) | {"MLRUNBOOK_HOME": str(Path.cwd())}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"port {dead_port} (prefect)" in one_line(done.stderr)


@pytest.mark.parametrize("service", ["gateway", "platform"])
def test_a_service_on_a_port_that_is_taken_names_it(cli: Cli, service: str, dead_port: int) -> None:
    command = [*COMMAND, service, "--port", str(dead_port), *(["--no-dispatcher"] if service == "gateway" else [])]
    done = subprocess.run(command, env=environment(cli), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode != 0
    assert str(dead_port) in done.stderr


def test_the_demo_knows_its_faults(cli: Cli) -> None:
    done = cli("demo", "--fault", "earthquake")
    assert done.exit_code == 1
    assert "bad-release" in one_line(done.stderr)


def test_python_minus_m_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "mlrunbook.cli", "--help"], capture_output=True, text=True, check=True)
    assert "incidents" in done.stdout


def test_a_token_that_goes_into_a_file_is_its_owners_alone(cli: Cli, engine: Engine, tmp_path: Path) -> None:
    file = tmp_path / "my.token"
    with file.open("w") as out:
        subprocess.run([*COMMAND, "token", "create", "x", "--scope", "read"], env=environment(cli), stdout=out, check=True)
    assert file.stat().st_mode & 0o777 == 0o600
    with transaction(engine) as conn:
        assert verify(conn, file.read_text().strip())


def test_the_version_is_told(cli: Cli) -> None:
    done = cli("--version")
    assert (done.exit_code, done.stdout) == (0, f"mlrunbook {version('mlrunbook')}\n")
