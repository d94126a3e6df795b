"""`mlrunbook platform-contract` against a platform over real HTTP."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy import Engine

from mlrunbook.base.tokens import Scope
from tests.cli.conftest import Cli, one_line
from tests.local.platform.kit import bearer, running


def test_a_platform_that_conforms_is_said_to_endpoint_by_endpoint(cli: Cli, platform: tuple[str, str]) -> None:
    url, model = platform
    done = cli("platform-contract", url, "--model", model, MLRUNBOOK_PLATFORM_URL=url)
    assert done.exit_code == 0, done.output
    assert "conforms   GET   /api/v1/ml/models/{model}/status\n           v2.0.0 serves, the server is not healthy\n" in done.stdout
    assert "not run    POST  /api/v1/ml/models/{model}/rollback" in done.stdout
    assert done.stdout.endswith("11 conforms, 7 not run\n")


def test_changes_need_the_models_name_and_a_token_and_are_put_back(cli: Cli, engine: Engine, platform: tuple[str, str]) -> None:
    url, model = platform
    reader = bearer(engine, Scope.READ)["Authorization"].removeprefix("Bearer ")
    without = cli("platform-contract", url, "--allow-changes", model, "--token-env", "TEAM_TOKEN", "--json", TEAM_TOKEN=reader)
    assert without.exit_code == 1
    refused = {r["check"]: r for r in json.loads(without.stdout) if r["verdict"] == "differs"}
    assert refused.keys() == {"rollback", "register", "stage", "promote", "flag_pending_work_orders"}
    assert "scope operate" in refused["rollback"]["came"]
    token = bearer(engine, Scope.OPERATE, Scope.READ)["Authorization"].removeprefix("Bearer ")
    done = cli("platform-contract", url, "--allow-changes", model, "--token-env", "TEAM_TOKEN", "--json", TEAM_TOKEN=token)
    assert {r["verdict"] for r in json.loads(done.stdout)} == {"conforms", "not run"}
    assert done.exit_code == 0
    assert token not in done.output


def test_a_model_the_platform_does_not_know_is_missing_everywhere(cli: Cli, platform: tuple[str, str]) -> None:
    done = cli("platform-contract", platform[0], "--model", "nobody", "--json", MLRUNBOOK_PLATFORM_URL=platform[0])
    assert done.exit_code == 1
    assert {r["check"]: r["verdict"] for r in json.loads(done.stdout)}["status"] == "missing"


def test_nothing_there_is_one_line(cli: Cli, dead_port: int) -> None:
    done = cli("platform-contract", f"http://127.0.0.1:{dead_port}")
    assert done.exit_code == 1
    assert "is the model platform up?" in one_line(done.stderr)
    assert cli("platform-contract", "ml.example.com").exit_code == 1
    assert "TEAM_TOKEN is empty" in one_line(cli("platform-contract", "http://x", "--token-env", "TEAM_TOKEN").stderr)


def test_the_settings_token_goes_to_the_settings_platform_alone(cli: Cli) -> None:
    seen: list[str | None] = []
    app = FastAPI()

    @app.get("/{path:path}")
    def everything(request: Request) -> Any:
        seen.append(request.headers.get("authorization"))
        return JSONResponse({}, 404)

    with running(app, {}) as client:
        url = str(client.base_url).rstrip("/")
        cli("platform-contract", url, MLRUNBOOK_PLATFORM_URL="http://elsewhere", MLRUNBOOK_PLATFORM_TOKEN="secret")
        assert set(seen) == {None}
        cli("platform-contract", url, MLRUNBOOK_PLATFORM_URL=url, MLRUNBOOK_PLATFORM_TOKEN="secret")
        assert seen[-1] == "Bearer secret"
