"""What can be wrong around the command line: no stack, a gateway or database that is down, a wrong token, bad settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, environment, one_line


def test_the_help_costs_no_heavy_import() -> None:
    heavy = "{'httpx', 'sqlalchemy', 'pydantic', 'prefect', 'sklearn', 'pandas', 'numpy', 'yaml'}"
    code = f"import sys, mlrunbook.cli.main; print(*sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


def test_help_names_every_command() -> None:
    said = Cli({})("--help").stdout
    names = ("up", "demo", "report", "incidents", "policy", "token", "deploy", "db", "gateway", "platform")
    assert all(f" {name} " in said for name in names)


def test_an_unknown_command_is_wrong_usage_in_one_line(cli: Cli) -> None:
    done = cli("incidnets")
    assert done.exit_code == 2
    assert "--help" in one_line(done.stderr)


def test_without_a_stack_it_says_how_to_start_one(tmp_path: Path) -> None:
    for command in (("incidents", "list"), ("db", "upgrade"), ("token", "list"), ("gateway",), ("platform",)):
        done = Cli({"MLRUNBOOK_DATA_DIR": str(tmp_path)})(*command)
        assert done.exit_code == 1
        assert "no running stack found: start one with `mlrunbook up`, or set MLRUNBOOK_" in one_line(done.stderr)


def test_the_env_file_of_a_running_stack_is_enough(cli: Cli, tmp_path: Path, incident: str) -> None:
    (tmp_path / "env").write_text("".join(f"{key}='{value}'\n" for key, value in cli.env.items()))
    done = Cli({"MLRUNBOOK_DATA_DIR": str(tmp_path)})("incidents", "list")
    assert incident in done.stdout


def test_the_local_stacks_token_is_not_sent_to_a_gateway_elsewhere(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("MLRUNBOOK_GATEWAY_URL=http://127.0.0.1:1\nMLRUNBOOK_GATEWAY_TOKEN=mlrb_local_secret\n")
    elsewhere = {"MLRUNBOOK_DATA_DIR": str(tmp_path), "MLRUNBOOK_GATEWAY_URL": cli.env["MLRUNBOOK_GATEWAY_URL"]}
    done = Cli(elsewhere)("incidents", "list")
    assert done.exit_code == 1
    assert "MLRUNBOOK_GATEWAY_TOKEN holds no token" in one_line(done.stderr)


def test_a_wrong_token_is_refused_with_the_way_to_a_right_one(cli: Cli) -> None:
    done = cli("incidents", "list", MLRUNBOOK_GATEWAY_TOKEN="mlrb_00000000_wrong")
    assert done.exit_code == 1
    assert "unknown or revoked" in one_line(done.stderr)
    assert "mlrunbook token create" in done.stderr


def test_a_token_file_that_is_missing_is_named(cli: Cli, incident: str, tmp_path: Path) -> None:
    done = cli("incidents", "ack", incident, "--token-file", str(tmp_path / "none"))
    assert done.exit_code == 1
    assert str(tmp_path / "none") in one_line(done.stderr)


def test_a_gateway_that_is_down_is_named_with_what_to_do(cli: Cli, dead_port: int) -> None:
    for command in (("list",), ("timeline", "incident_1", "--follow")):
        done = cli("incidents", *command, MLRUNBOOK_GATEWAY_URL=f"http://127.0.0.1:{dead_port}")
        assert done.exit_code == 1
        said = one_line(done.stderr)
        assert f"127.0.0.1:{dead_port} does not answer" in said
        assert "mlrunbook up" in said


@pytest.mark.parametrize("url", ["localhost:8090", "http://[", "ftp://127.0.0.1"])
def test_a_gateway_url_that_is_none_names_the_setting(cli: Cli, url: str) -> None:
    done = cli("incidents", "list", MLRUNBOOK_GATEWAY_URL=url)
    assert done.exit_code == 1
    assert "MLRUNBOOK_GATEWAY_URL" in one_line(done.stderr)


def test_a_database_that_is_down_is_said_without_its_password(cli: Cli, dead_port: int) -> None:
    url = f"postgresql://someone:hunter2@127.0.0.1:{dead_port}/none"
    for command in (("token", "list"), ("db", "upgrade")):
        done = cli(*command, MLRUNBOOK_DATABASE_URL=url)
        assert done.exit_code == 1
        assert "not reachable" in one_line(done.stderr)
        assert "hunter2" not in done.output


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense"])
def test_a_database_url_that_is_none_of_postgresql_names_the_setting(cli: Cli, url: str) -> None:
    done = cli("token", "list", MLRUNBOOK_DATABASE_URL=url)
    assert done.exit_code == 1
    assert "MLRUNBOOK_DATABASE_URL" in one_line(done.stderr)


def test_a_traceback_is_for_those_who_ask(cli: Cli) -> None:
    done = cli("incidents", "show", "incident_999999", MLRUNBOOK_DEBUG="1")
    assert type(done.exception).__name__ == "NotFound"


def test_a_pipe_that_closes_early_is_no_error(cli: Cli, incident: str) -> None:
    command = f"{sys.executable} -m mlrunbook.cli incidents list --json | head -c 1"
    done = subprocess.run(["bash", "-c", command], env=environment(cli), capture_output=True, text=True, check=False)
    assert done.stderr == ""
