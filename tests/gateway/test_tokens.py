"""Who may do what on the gateway."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from mlrunbook.base import tokens
from mlrunbook.base.db import transaction
from mlrunbook.base.tokens import Scope
from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.policy.intake import MAIL, OWN, SENDERS
from mlrunbook.gateway.webhooks import registry
from mlrunbook.gateway.webhooks.registry import FORMATS
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


SPELLINGS = ("Ann Lee", " ann  lee ", "ANN LEE", "\uff21nn Lee", "Ann\u00a0Lee", "ann\u2003lee")


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_person_is_the_same_however_the_name_is_written(name: str) -> None:
    assert tokens.person_of(name) == "ann lee"


@given(st.text(max_size=40))
def test_the_id_of_a_person_names_that_person_again(name: str) -> None:
    assert tokens.person_of(tokens.person_of(name)) == tokens.person_of(name)


@pytest.mark.parametrize("name", ["Ann\u200bLee", "Ann\u202eeeL", "Ann\x00", "\ufeffAnn", "Ann\nLee", " "])
def test_a_name_that_looks_like_another_is_refused(engine: Engine, name: str) -> None:
    with pytest.raises(Invalid), transaction(engine) as conn:
        tokens.create(conn, name=name, scopes=[Scope.READ])


def test_a_token_that_has_ended_or_is_for_no_model_is_refused(engine: Engine) -> None:
    with pytest.raises(Invalid), transaction(engine) as conn:
        tokens.create(conn, name="x", scopes=[Scope.READ], limits=tokens.Limits(expires_at=datetime.now(UTC)))
    for pattern in ("", "pump[0-9]", "a b", "x" * 101):
        with pytest.raises(Invalid):
            tokens.Limits(models=(pattern,))


@given(
    st.lists(st.sampled_from(("pump", "pump_?", "pump*", "*", "?ump")), min_size=1),
    st.sampled_from(("pump", "pump_1", "PUMP", "ump", "pumps")),
)
def test_a_model_is_in_its_limits_when_a_pattern_fits_it(patterns: list[str], model: str) -> None:
    who = tokens.Identity("1", "x", None, frozenset(), limits=tokens.Limits(models=tuple(patterns)))
    fits = {"pump": ("pump",), "pump_?": ("pump_1",), "pump*": ("pump", "pump_1", "pumps"), "?ump": ("pump",)}
    assert who.may_see(model) == any(pattern == "*" or model in fits[pattern] for pattern in patterns)


def test_policy_and_tokens_know_every_sender() -> None:
    assert set(SENDERS) == {OWN, "report", MAIL, *FORMATS}
    assert set(registry.SENDERS) == set(SENDERS) - {OWN} | {"changes"}
