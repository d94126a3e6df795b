"""The platform contract against the platform in the box over real HTTP, against the tests' fake, and against platforms that break it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, Response
from sqlalchemy import Engine

from mlrunbook.adapters.local import serving_config
from mlrunbook.adapters.model_platform import HttpPlatform
from mlrunbook.base.db import transaction
from mlrunbook.base.tokens import Scope
from mlrunbook.diagnostics.platform_contract import CHECKS, Check, Differs, NotRun, Subject
from mlrunbook.diagnostics.platform_contract_http import Verdict, examine
from mlrunbook.local.platform import feature_schedules, work_orders
from mlrunbook.local.platform.api import create_app
from mlrunbook.ports import ModelPlatform
from tests.fakes import MODEL, FileWorld
from tests.local.platform.kit import bearer, log, new_model, release, running, save_version, settings_for

every_check = pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)


@pytest.fixture(scope="module")
def ours(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """URL, token and model of the platform in the box, with something to see everywhere."""
    settings = settings_for(tmp_path_factory.mktemp("data"), engine, model_server_url="http://127.0.0.1:9")
    model, now = new_model(), datetime.now(UTC)
    release(engine, settings.models_dir, model, "v1.5.0", "v2.0.0")
    save_version(settings.models_dir, model, "v2.1.0")
    for minutes in (1, 5, 90):
        log(engine, model, tp=2, fp=1, fn=1, tn=2, unlabelled=2, at=now - timedelta(minutes=minutes), version="v2.0.0")
    config = serving_config.ensure(settings.serving_config_file, threshold=0.5)
    with transaction(engine) as conn:
        work_orders.create(conn, [(1, "asset_1", 0.9)], model=model, config=config, at=now)
        feature_schedules.note_run(conn, "asset_sensors", at=now, until=now)
    token = bearer(engine, Scope.OPERATE, Scope.READ)["Authorization"].removeprefix("Bearer ")
    with running(create_app(settings, engine, evaluate_every_s=None), {}) as client:
        yield str(client.base_url), token, model


@every_check
def test_the_platform_in_the_box_keeps_the_contract(ours: tuple[str, str, str], check: Check) -> None:
    url, token, model = ours
    before = HttpPlatform(url, token).status(model)
    (result,) = examine(url, model=model, token=token, changes_allowed=True, names=[check.name])
    assert (result.verdict, result.came) == (Verdict.CONFORMS, result.came)
    after = HttpPlatform(url, token).status(model)
    assert (after.serving_version, after.staging_version) == (before.serving_version, before.staging_version)


@every_check
def test_the_fake_of_the_tests_keeps_the_contract(tmp_path: Path, check: Check) -> None:
    """What a fake does otherwise, the flows' tests would prove wrongly."""
    fake = FileWorld(tmp_path / "world.json", lambda: datetime.now(UTC))
    with suppress(NotRun):  # a platform may leave it out
        check.ask(fake, Subject(MODEL, datetime.now(UTC)))


def test_every_verb_of_the_port_has_its_check() -> None:
    verbs = {name for name, member in inspect.getmembers(ModelPlatform) if inspect.isfunction(member) and not name.startswith("_")}
    assert verbs == {check.name for check in CHECKS}


def test_what_changes_something_is_not_asked_unless_it_is_allowed(ours: tuple[str, str, str]) -> None:
    url, token, model = ours
    before = HttpPlatform(url, token).changes(model, since=datetime.now(UTC) - timedelta(days=1))
    results = {result.check: result for result in examine(url, model=model, token=token)}
    assert {name for name, r in results.items() if r.verdict is Verdict.NOT_RUN} == {check.name for check in CHECKS if check.changes}
    assert HttpPlatform(url, token).changes(model, since=datetime.now(UTC) - timedelta(days=1)) == before
    assert (results["promote"].method, results["promote"].path) == ("POST", "/api/v1/ml/models/{model}/promote")


def test_what_is_not_there_is_missing_and_what_is_off_says_how(ours: tuple[str, str, str]) -> None:
    url, token, model = ours
    logs, replay = "/api/v1/ml/predictions/logs", f"/api/v1/ml/models/{model}/replay"

    def broken(request: httpx.Request) -> httpx.Response:
        if request.url.path == replay:
            return httpx.Response(405)
        answer = httpx.request(request.method, url + request.url.raw_path.decode(), headers={"Authorization": f"Bearer {token}"})
        body = answer.json()
        if request.url.path == logs:
            body["predictions"].reverse()
        return httpx.Response(answer.status_code, json=body)

    with _served(broken) as address:
        results = {result.check: result for result in examine(address, model=model)}
    assert {name for name, r in results.items() if r.verdict not in (Verdict.CONFORMS, Verdict.NOT_RUN)} == {"replay", "prediction_log"}
    assert results["replay"].verdict is Verdict.MISSING
    assert (results["prediction_log"].verdict, results["prediction_log"].expected) == (Verdict.DIFFERS, "newest first")


def test_a_platform_that_forgets_its_keys_is_found_out_and_left_as_it_was(tmp_path: Path) -> None:
    class Forgetful(FileWorld):
        def rollback(self, model: str, *, target_version: str, reason: str, rolled_back_by: str, idempotency_key: str) -> Any:
            s = self._known(model)
            if target_version in s["versions"]:
                self._apply("rollback", self._released(s, target_version, "rollback"))
            return self.status(model)

    fake = Forgetful(tmp_path / "world.json", lambda: datetime.now(UTC))
    (check,) = (check for check in CHECKS if check.name == "rollback")
    with pytest.raises(Differs, match="404"):
        check.ask(fake, Subject(MODEL, datetime.now(UTC)))
    assert fake.status(MODEL).serving_version == "v2.0.0"


def test_a_second_change_by_the_same_key_is_found_out(tmp_path: Path) -> None:
    class Repeating(FileWorld):
        def rollback(self, model: str, *, target_version: str, reason: str, rolled_back_by: str, idempotency_key: str) -> Any:
            key = f"{idempotency_key}-{len(self.state['keys'])}"
            args = {"target_version": target_version, "reason": reason, "rolled_back_by": rolled_back_by, "idempotency_key": key}
            if target_version == self.state["serving"]:  # "again" is once more, and noted once more
                self.set(released_before=[{"kind": "rollback", "ref": target_version, "at": self._now().isoformat()}])
            return super().rollback(model, **args)

    fake = Repeating(tmp_path / "world.json", lambda: datetime.now(UTC))
    (check,) = (check for check in CHECKS if check.name == "rollback")
    with pytest.raises(Differs, match="nothing more changed"):
        check.ask(fake, Subject(MODEL, datetime.now(UTC)))
    assert fake.status(MODEL).serving_version == "v2.0.0"


def test_without_rows_order_is_not_judged(tmp_path: Path) -> None:
    class Quiet(FileWorld):
        def prediction_log(self, model: str, **_: Any) -> Any:
            return []

    (check,) = (check for check in CHECKS if check.name == "prediction_log")
    with pytest.raises(NotRun, match="no prediction"):
        check.ask(Quiet(tmp_path / "world.json", lambda: datetime.now(UTC)), Subject(MODEL, datetime.now(UTC)))


@contextmanager
def _served(answer: Callable[[httpx.Request], httpx.Response]) -> Iterator[str]:
    """`answer` over real HTTP."""
    app = FastAPI()

    @app.api_route("/{path:path}", methods=["GET", "POST"])
    def everything(request: Request) -> Response:
        given = answer(httpx.Request(request.method, str(request.url), headers=dict(request.headers)))
        return Response(given.content, given.status_code, media_type="application/json")

    with running(app, {}) as client:
        yield str(client.base_url).rstrip("/")
