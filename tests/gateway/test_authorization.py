"""Who may do what: every route of the three services, by every single scope, and by no, wrong, expired and limited tokens."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import Engine, text

from mlrunbook.base import tokens
from mlrunbook.base.authentication import AuthenticatedRoute
from mlrunbook.base.db import transaction
from mlrunbook.base.edge import Limits
from mlrunbook.base.tokens import OF_INTAKE, Scope
from mlrunbook.domain.cause import Cause
from mlrunbook.domain.incident import Status
from mlrunbook.domain.investigation.diagnosis import Diagnosed
from mlrunbook.gateway.app import create_app
from mlrunbook.gateway.console.route import ConsoleRoute
from mlrunbook.gateway.webhooks.registry import FORMATS
from mlrunbook.local.platform import api as platform_api
from mlrunbook.local.serving import model_server
from mlrunbook.response.world import World
from mlrunbook.store import incidents, records
from tests.local.platform.kit import log, new_model, settings_for

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette would rather have another HTTP client than the one the product uses
    from fastapi.testclient import TestClient

ALL = tuple(scope for scope in Scope if scope is not Scope.INTAKE)
MODEL, OTHER = "predictive_maintenance", "another_model"
HEADERS = ("Bearer mlrb_00000000_" + "x" * 43, "Bearer", "Basic eDp5", "bearer null", "Bearer mlrb__", "Bearer " + "A" * 4000)
DOCS = ("/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css")
OPEN = {("gateway", "GET", path) for path in ("/", "/health", "/ready", "/openapi.json", "/docs", *DOCS)} | {
    ("gateway", "OPTIONS", "/webhooks/cloudevents"),  # the handshake of the specification
    *(("platform", "GET", path) for path in ("/health", "/openapi.json")),
    *(("model server", "GET", path) for path in ("/health", "/ready", "/openapi.json")),
}
BODY_OF = {
    "/api/v1/changes": {"model": MODEL, "kind": "deployment", "ref": "v2", "author": "ci", "at": "2026-03-29T00:00:00Z"},
}
TAKEN_IN = text("SELECT (SELECT count(*) FROM incidents), (SELECT count(*) FROM alerts), (SELECT count(*) FROM changes)")


def expected(service: str, method: str, path: str) -> Scope:
    """What the route is for, by its path alone."""
    if method == "GET" or path == "/api/v1/console/links":  # a link shows what its token may read
        return Scope.READ
    if path.endswith("/predict"):
        return Scope.PREDICT
    if path.endswith("/outcomes"):
        return Scope.OUTCOMES
    if path.startswith("/webhooks/"):
        return Scope.ALERTS
    if path in ("/api/v1/model-governance/{modelId}/incidents", "/api/v1/changes"):
        return Scope.REPORT
    if service == "gateway" and path.endswith(("/approvals", "/containment", "/signatures")):
        return Scope.APPROVE
    return Scope.OPERATE


@pytest.fixture(scope="module")
def services(world: World, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, FastAPI]:
    config = settings_for(tmp_path_factory.mktemp("data"), engine).model_copy(
        update={"requests_per_min_address": 10**9, "failed_logins_per_min_address": 10**9, "requests_per_min_token": 10**9}
    )
    return {
        "gateway": create_app(world, limits=Limits.of(config, body_bytes=4 << 20)),
        "platform": platform_api.create_app(config, engine, evaluate_every_s=None),
        "model server": model_server.create_app(config, engine, model=MODEL),
    }


@pytest.fixture(scope="module")
def clients(services: dict[str, FastAPI]) -> dict[str, TestClient]:
    return {name: TestClient(app, raise_server_exceptions=False) for name, app in services.items()}


def every(app: FastAPI) -> Iterator[tuple[str, set[str], Any]]:
    """Path, methods and route; also of routers that are included, which FastAPI keeps as they are."""
    for route in app.routes:
        if hasattr(route, "effective_route_contexts"):
            for one in route.effective_route_contexts():
                yield one.path, set(one.methods), one.original_route
        else:
            yield route.path, set(getattr(route, "methods", None) or ()), route  # type: ignore[attr-defined]


def routes(services: dict[str, FastAPI]) -> list[tuple[str, str, str]]:
    """Of the schema, and those that are not in it."""
    found = set()
    for name, app in services.items():
        found |= {(name, method.upper(), path) for path, ways in app.openapi()["paths"].items() for method in ways}
        # The console's pages ask for a session: tests/gateway/console/test_authorization.py.
        api = [(path, methods) for path, methods, route in every(app) if not isinstance(route, ConsoleRoute)]
        found |= {(name, method, path.replace(":path", "")) for path, methods in api for method in methods - {"HEAD"}}
    return sorted(found)


def guarded(services: dict[str, FastAPI]) -> list[tuple[str, str, str]]:
    return [one for one in routes(services) if one not in OPEN]


def url_of(path: str) -> str:
    values = {
        "{modelId}": MODEL,
        "{model}": MODEL,
        "{asked}": MODEL,
        "{id}": "incident_1",
        "{clock}": "gdpr",
        "{name:path}": "x",
        "{name}": "x",
    }
    for name, value in (values | {"{item}": "1", "{number}": "1", "{audit}": "1"}).items():
        path = path.replace(name, value)
    return path


def ask(client: TestClient, method: str, path: str, headers: dict[str, str] | None = None) -> Any:
    body = BODY_OF.get(path, alert(path) if path.startswith("/webhooks/") else {}) if method != "GET" else None
    return client.request(method, url_of(path), headers=headers, json=body)


def alert(path: str) -> Any:
    """On MODEL, in the format of that webhook where one sample does for several."""
    labels = {"model": MODEL, "alertname": "ModelProbed", "severity": "critical"}
    match path.rsplit("/", 1)[1]:
        case "alertmanager" | "grafana":
            one = {"status": "firing", "labels": labels, "annotations": {"summary": "x"}, "startsAt": "2026-03-29T00:00:00Z"}
            return {"version": "4" if path.endswith("alertmanager") else "1", "status": "firing", "alerts": [one]}
        case "generic":
            return {"model": MODEL, "kind": "ModelProbed", "status": "firing"}
        case "opsgenie":
            return {"action": "Create", "alert": {"alertId": "a1", "message": "x", "details": {"model": MODEL}}}
        case _:
            return {}


def made(engine: Engine, *scopes: Scope, **limits: Any) -> dict[str, str]:
    with transaction(engine) as conn:
        return {"Authorization": f"Bearer {tokens.create(conn, name='somebody', scopes=scopes, limits=tokens.Limits(**limits))}"}


def test_every_route_says_what_it_asks_for(services: dict[str, FastAPI]) -> None:
    for name, app in services.items():
        for path, methods, route in every(app):
            asked = {(name, method, path.replace(":path", "")) for method in methods - {"HEAD"}}
            if not asked <= OPEN and not isinstance(route, ConsoleRoute):
                assert isinstance(route, AuthenticatedRoute), (name, path)
                assert {door.scope for door in route.doors} == {expected(*one) for one in asked}, (name, path)


def test_a_token_of_one_scope_opens_exactly_the_doors_of_that_scope(
    services: dict[str, FastAPI], clients: dict[str, TestClient], engine: Engine
) -> None:
    keys = {scope: made(engine, scope) for scope in ALL}
    for service, method, path in guarded(services):
        told = {scope: ask(clients[service], method, path, key).status_code for scope, key in keys.items()}
        opened = {scope for scope, status in told.items() if status not in (401, 403)}
        assert opened == {expected(service, method, path)}, (service, method, path, told)
        assert {status for scope, status in told.items() if scope not in opened} == {403}
        assert max(told.values()) != 500


def test_the_old_scope_opens_what_it_opened(services: dict[str, FastAPI], clients: dict[str, TestClient], engine: Engine) -> None:
    old = made(engine, Scope.INTAKE)
    for service, method, path in guarded(services):
        status = ask(clients[service], method, path, old).status_code
        assert (status not in (401, 403)) == (expected(service, method, path) in OF_INTAKE), (service, method, path, status)


def test_no_token_junk_and_a_token_that_is_over_open_nothing(
    services: dict[str, FastAPI], clients: dict[str, TestClient], engine: Engine
) -> None:
    over = made(engine, *ALL, expires_at=datetime.now(UTC) + timedelta(hours=1))
    with transaction(engine) as conn:
        conn.execute(text("UPDATE tokens SET expires_at = '2026-01-31T12:00:00Z' WHERE expires_at IS NOT NULL"))
    for service, method, path in guarded(services):
        for headers in ({}, *({"Authorization": junk} for junk in HEADERS)):
            assert ask(clients[service], method, path, headers).status_code == 401, (service, method, path, headers)
        expired = ask(clients[service], method, path, over)
        assert expired.status_code == 401
        assert "expired at 2026-01-31 12:00 UTC" in expired.json()["detail"]
        assert "mlrunbook token create" in expired.json()["detail"]


def test_what_is_open_needs_no_token(services: dict[str, FastAPI], clients: dict[str, TestClient]) -> None:
    assert set(routes(services)) >= OPEN
    for service, method, path in OPEN:
        assert clients[service].request(method, path).status_code not in (401, 403, 500)


def test_a_token_of_another_model_opens_nothing(services: dict[str, FastAPI], clients: dict[str, TestClient], engine: Engine) -> None:
    wrong = made(engine, *ALL, models=(OTHER, "predictive_maintenanc", "predictive_maintenance?"))
    with transaction(engine) as conn:
        before = conn.execute(TAKEN_IN).one()
    for service, method, path in guarded(services):
        answer = ask(clients[service], method, path, wrong)
        if path.endswith("/outcomes") or (path.startswith("/webhooks/") and not alert(path)):
            continue  # an empty body names no model: their own tests
        if path == "/api/v1/console/links":
            continue  # what it leads to is confined alike: tests/gateway/console/test_links.py
        assert answer.status_code == 403, (service, method, path, answer.text)
    with transaction(engine) as conn:
        assert conn.execute(TAKEN_IN).one() == before


@pytest.mark.parametrize("query", [f"?model={OTHER}", "?model=", f"?model={OTHER}&model={MODEL}", ""])
def test_a_query_that_a_list_does_not_read_lets_no_limited_token_in(clients: dict[str, TestClient], engine: Engine, query: str) -> None:
    limited = made(engine, *ALL, models=(OTHER,))
    for path in ("/api/v1/incidents", "/api/v1/actions", "/api/v1/quarantine", "/api/v1/alerts/silenced", "/metrics"):
        assert clients["gateway"].get(path + query, headers=limited).status_code == 403
    told = clients["platform"].get("/api/v1/model-performance/alerts" + query, headers=limited)
    assert (told.status_code == 403) == (query != f"?model={OTHER}")


def test_a_limited_token_learns_nothing_of_other_incidents(clients: dict[str, TestClient], engine: Engine, world: World) -> None:
    unlimited, limited = made(engine, *ALL), made(engine, *ALL, models=("mine_*",))
    report = {"severity": "low", "type": "security", "description": "x"}
    ids = {}
    for model in ("mine_1", "theirs"):
        told = clients["gateway"].post(f"/api/v1/model-governance/{model}/incidents?unknownModel=true", json=report, headers=unlimited)
        ids[model] = told.json()["id"]
    get = clients["gateway"].get
    assert get(f"/api/v1/incidents/{ids['mine_1']}", headers=limited).status_code == 200
    others = [get(f"/api/v1/incidents/{one}", headers=limited) for one in (ids["theirs"], "incident_999999")]
    assert [one.status_code for one in others] == [403, 403]
    assert others[0].json()["detail"] == others[1].json()["detail"]
    assert get("/api/v1/model-governance/mine_1/incidents", headers=limited).status_code == 200


def test_a_limited_token_reads_no_precedent_of_another_model(clients: dict[str, TestClient], engine: Engine, world: World) -> None:
    unlimited, limited = made(engine, *ALL), made(engine, *ALL, models=("ours_*",))
    told, now = {"severity": "low", "type": "performance_degradation", "description": "x"}, world.now()
    ids = {}
    for model in ("ours_1", "foreign"):
        opened = clients["gateway"].post(f"/api/v1/model-governance/{model}/incidents?unknownModel=true", json=told, headers=unlimited)
        ids[model] = opened.json()["id"]
        with transaction(engine) as conn:
            records.keep(conn, ids[model], Diagnosed(Cause.BAD_ROLLOUT), now=now)
    with transaction(engine) as conn:
        for status in (Status.RESOLVED, Status.CLOSED):
            incidents.set_status(conn, ids["foreign"], status, why="x", actor="x", now=now)
    precedents = [
        clients["gateway"].get(f"/api/v1/incidents/{ids['ours_1']}", headers=h).json()["precedents"] for h in (unlimited, limited)
    ]
    assert [len(some) for some in precedents] == [1, 0]


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_a_token_for_one_sender_posts_for_no_other(clients: dict[str, TestClient], engine: Engine, form: str) -> None:
    mine, other = made(engine, *ALL, senders=(form,)), made(engine, *ALL, senders=("email",))
    assert clients["gateway"].post(f"/webhooks/{form}", json={}, headers=mine).status_code not in (401, 403)
    assert clients["gateway"].post(f"/webhooks/{form}", json={}, headers=other).status_code == 403
    assert clients["gateway"].post("/api/v1/changes", json=BODY_OF["/api/v1/changes"], headers=mine).status_code == 403
    assert clients["gateway"].post(f"/api/v1/model-governance/{MODEL}/incidents", json={}, headers=mine).status_code == 403


def test_outcomes_of_other_models_are_refused(clients: dict[str, TestClient], engine: Engine) -> None:
    model = new_model()
    (number,) = log(engine, model, tp=1)
    body = {"outcomes": [{"predictionId": number, "failed": True}]}
    post = clients["platform"].post
    assert post("/api/v1/ml/predictions/outcomes", json=body, headers=made(engine, Scope.OUTCOMES, models=(OTHER,))).status_code == 403
    assert post("/api/v1/ml/predictions/outcomes", json=body, headers=made(engine, Scope.OUTCOMES, models=(model,))).status_code == 200
