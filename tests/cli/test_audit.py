"""`mlrunbook audit` against the platform in the box over real HTTP, on a real store; and the report over the gateway."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, text

from mlrunbook.base.db import transaction
from mlrunbook.base.tokens import Scope
from mlrunbook.local.platform.api import create_app
from mlrunbook.store import audits, incidents
from tests.cli.conftest import COMMAND, Cli, environment, one_line
from tests.local.platform.kit import log, new_model, release, running, settings_for


@pytest.fixture(scope="module")
def platform(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """URL of the platform in the box, and a model that did well last week and badly in this one."""
    settings, model = settings_for(tmp_path_factory.mktemp("data"), engine, model_server_url="http://127.0.0.1:9"), new_model()
    release(engine, settings.models_dir, model, "v1.5.0")
    now = datetime.now(UTC)
    for half in range(2, 28):  # days, counted twice each: fewer batches than eight prove nothing
        tp, fn = (20, 5) if half > 14 else (10, 15)
        log(engine, model, tp=tp, fp=5, fn=fn, tn=200, at=now - timedelta(hours=12 * half), version="v1.5.0")
    with transaction(engine) as conn:  # no asset is seen twice
        conn.execute(text("UPDATE platform.predictions SET asset_id = 'asset_' || id WHERE model = :model"), {"model": model})
    with running(create_app(settings, engine, evaluate_every_s=None), {}) as client:
        yield str(client.base_url).rstrip("/"), model


def audit(cli: Cli, platform: tuple[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: it reads its settings once."""
    env = environment(cli) | {"MLRUNBOOK_PLATFORM_URL": platform[0], "MLRUNBOOK_DATA_DIR": cli.env["MLRUNBOOK_HOME"]}
    words = [*COMMAND, "audit", *args, "--model", platform[1]]
    return subprocess.run(words, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_a_broken_limit_is_told_filed_and_opened_and_the_report_is_written_and_served(
    cli: Cli, engine: Engine, platform: tuple[str, str], tmp_path: Path, gateway_url: str, token: Callable[..., str]
) -> None:
    done = audit(cli, platform, "weekly", "--json", "--out", str(tmp_path / "reports"))
    assert done.returncode == 1, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    found = {s["key"]: s for s in told["sections"]}
    assert (told["verdict"], found["performance"]["verdict"]) == ("fail", "fail"), found["performance"]["sentence"]
    page = Path(told["report"]).read_bytes()
    assert Path(told["report"]).parent == tmp_path / "reports"
    with transaction(engine) as conn:
        incident = incidents.get(conn, found["performance"]["incidentId"])
        (filed,) = audits.find(conn, model=platform[1])
        assert audits.report(conn, filed.id) == page
    assert (incident.model, incident.reported_by) == (platform[1], "weekly audit")

    url = f"{gateway_url}/api/v1/audits"
    reader = {"Authorization": f"Bearer {token('a reader', Scope.READ)}"}
    assert httpx.get(url).status_code == 401
    assert [a["verdict"] for a in httpx.get(url, headers=reader, params={"model": platform[1]}).json()["audits"]] == ["fail"]
    served = httpx.get(f"{url}/{filed.id}/report", headers=reader)
    assert (served.content, served.headers["content-type"]) == (page, "text/html; charset=utf-8")
    assert "sandbox;" in served.headers["content-security-policy"]
    assert httpx.get(f"{url}/999999/report", headers=reader).status_code == 404


def test_a_dry_run_writes_a_report_and_nothing_else(cli: Cli, engine: Engine, platform: tuple[str, str]) -> None:
    with transaction(engine) as conn:
        before = (audits.find(conn), incidents.find(conn))
    done = audit(cli, platform, "monthly", "--dry-run")
    assert done.returncode in (0, 1), done.stderr
    assert "Monthly bias and fairness assessment" in done.stdout
    assert Path(done.stdout.split("report: ")[1].strip().replace("\n", "")).exists()
    with transaction(engine) as conn:
        assert (audits.find(conn), incidents.find(conn)) == before


def test_without_a_stack_it_says_how_to_start_one(tmp_path: Path) -> None:
    done = Cli({"MLRUNBOOK_DATA_DIR": str(tmp_path)})("audit", "weekly")
    assert done.exit_code == 1
    assert "no running stack found" in one_line(done.stderr)


@pytest.mark.parametrize("words", [["game day"], ["game day", "--result", "fine", "--held", "2999-01-01"]])
def test_a_drill_needs_its_outcome_and_a_day_that_has_been(tmp_path: Path, words: list[str]) -> None:
    done = Cli({"MLRUNBOOK_DATA_DIR": str(tmp_path)})("audit", "drill", *words)
    assert done.exit_code == 1
    assert "drill" in one_line(done.stderr)


def test_the_score_of_a_game_day_is_recorded_with_it(cli: Cli, engine: Engine, platform: tuple[str, str], tmp_path: Path) -> None:
    file = tmp_path / "gameday.json"
    file.write_text(json.dumps({"runs": [], "score": {"runs": 45, "top1": 0.98, "top3": 1.0, "right_path": 0.96, "harmful_actions": 0}}))
    env = environment(cli)
    done = subprocess.run(
        [*COMMAND, "audit", "drill", "game day", "--gameday", str(file)], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("noted: game day")
    with transaction(engine) as conn:
        (held,) = audits.drills_held(conn, since=datetime.now(UTC) - timedelta(hours=1))
    assert held.result == "45 runs: first cause 98 %, right path 96 %, harmful actions 0"
