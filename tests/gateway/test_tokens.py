"""Who may do what on the gateway."""

from __future__ import annotations

import base64

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from mlrunbook.base import tokens
from mlrunbook.base.db import transaction
from mlrunbook.base.tokens import Scope
from tests.gateway.conftest import Keys

DOORS = [
    ("GET", "/api/v1/incidents", Scope.READ),
    ("GET", "/api/v1/incidents/incident_1", Scope.READ),
    ("GET", "/api/v1/incidents/incident_1/timeline", Scope.READ),
    ("GET", "/api/v1/incidents/incident_1/verify", Scope.READ),
    ("GET", "/api/v1/incidents/incident_1/head", Scope.READ),
    ("GET", "/api/v1/chains", Scope.READ),
    ("GET", "/api/v1/incidents/incident_1/review", Scope.READ),
    ("GET", "/api/v1/model-governance/pump/incidents", Scope.READ),
    ("POST", "/api/v1/model-governance/pump/incidents", Scope.REPORT),
    ("POST", "/webhooks/alertmanager", Scope.ALERTS),
    ("POST", "/api/v1/incidents/incident_1/acknowledge", Scope.OPERATE),
    ("POST", "/api/v1/incidents/incident_1/resolve", Scope.OPERATE),
    ("POST", "/api/v1/incidents/incident_1/close", Scope.OPERATE),
    ("POST", "/api/v1/incidents/incident_1/approvals", Scope.APPROVE),
]
BODIES = {"resolve": {"what": "x"}, "approvals": {"decision": "approved", "planDigest": "0" * 64}}


def _body(path: str) -> dict[str, str] | None:
    report = {"severity": "low", "type": "security", "description": "x"}
    return BODIES.get(path.rsplit("/", 1)[1], report if path.endswith("/incidents") else None)


@pytest.mark.parametrize(("method", "path", "scope"), DOORS)
def test_every_door_wants_a_token_of_its_scope(anonymous: TestClient, keys: Keys, method: str, path: str, scope: Scope) -> None:
    body = _body(path) if method == "POST" else None
    missing = anonymous.request(method, path, json=body)
    assert missing.status_code == 401
    assert missing.headers["content-type"] == "application/problem+json"
    assert f'scope="{scope}"' in missing.headers["www-authenticate"]

    others = keys.of("somebody", *(set(Scope) - {scope, Scope.INTAKE}))
    lacking = anonymous.request(method, path, json=body, headers=others)
    assert lacking.status_code == 403
    assert str(scope) in lacking.json()["detail"]


@pytest.mark.parametrize(
    "header",
    ["Bearer ", "Bearer mlrb_00000000_x", "Bearer nonsense", "Basic eDp5", "mlrb_x", "Bearer mlrb_\u00e9_x", "Digest abc"],
)
def test_a_wrong_token_is_401(anonymous: TestClient, header: str) -> None:
    answer = anonymous.get("/api/v1/incidents", headers={b"Authorization": header.encode("latin-1")})
    assert answer.status_code == 401
    assert "www-authenticate" in answer.headers


def test_a_revoked_token_is_401(anonymous: TestClient, keys: Keys, engine: Engine) -> None:
    token = keys.token("left the team")
    headers = {"Authorization": f"Bearer {token}"}
    assert anonymous.get("/api/v1/incidents", headers=headers).status_code == 200
    with transaction(engine) as conn:
        tokens.revoke(conn, token)
    assert anonymous.get("/api/v1/incidents", headers=headers).status_code == 401


def test_the_webhook_takes_http_basic_with_the_token_as_password(anonymous: TestClient, keys: Keys, engine: Engine) -> None:
    empty = {"version": "4", "alerts": []}
    token = keys.token("alertmanager", Scope.ALERTS)
    assert anonymous.post("/webhooks/alertmanager", json=empty, auth=("anybody", token)).status_code == 202
    assert anonymous.post("/webhooks/alertmanager", json=empty, auth=("anybody", token[:-1])).status_code == 401
    for broken in ("!!!", base64.b64encode(b"\xff\xfe:\xff").decode(), ""):
        refused = anonymous.post("/webhooks/alertmanager", json=empty, headers={"Authorization": f"Basic {broken}"})
        assert refused.status_code == 401
        assert "Basic" in refused.headers["www-authenticate"]


def test_basic_opens_no_other_door(anonymous: TestClient, keys: Keys) -> None:
    assert anonymous.get("/api/v1/incidents", auth=("anybody", keys.token("reader"))).status_code == 401


def test_an_unauthenticated_message_leaves_no_trace(anonymous: TestClient, engine: Engine) -> None:
    counts = text("SELECT (SELECT count(*) FROM quarantine), (SELECT count(*) FROM alerts), (SELECT count(*) FROM incidents)")
    with transaction(engine) as conn:
        before = conn.execute(counts).one()
    for content in (b"not json", b'{"version": "4", "alerts": [{}]}'):
        assert anonymous.post("/webhooks/alertmanager", content=content).status_code == 401
    with transaction(engine) as conn:
        assert conn.execute(counts).one() == before
