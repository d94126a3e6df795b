"""Who may post: the senders' own proofs hold, one flipped byte or an old timestamp does not, and two secrets are valid during rotation."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrunbook.base.tokens import Scope
from mlrunbook.gateway.webhooks import signatures
from mlrunbook.gateway.webhooks.registry import FORMATS
from mlrunbook.gateway.webhooks.signatures import Signed, prove
from tests.gateway.conftest import Clock, Keys

PAYLOADS = Path(__file__).parents[1] / "payloads"
SIGNED_AT = datetime.fromtimestamp(1789374301, UTC)
FORMAT_OF = {
    "pagerduty_v3": "pagerduty",
    "slack_v0": "generic",
    "grafana_hmac_body": "grafana",
    "grafana_hmac_timestamp": "grafana",
    "github_sha256": "generic",
    "mlflow_v1": "mlflow",
    "alertmanager_bearer": "alertmanager",
    "alertmanager_basic": "alertmanager",
    "opsgenie_custom_header": "opsgenie",
    "datadog_custom_header": "datadog",
}
VECTORS = json.loads((PAYLOADS / "signature_vectors.json").read_text())
every_vector = pytest.mark.parametrize("vector", VECTORS, ids=[v["scheme"] for v in VECTORS])
TIMED = ("slack_v0", "grafana_hmac_timestamp", "mlflow_v1")
OF_THE_BODY = ("pagerduty_v3", "slack_v0", "grafana_hmac_body", "grafana_hmac_timestamp", "github_sha256", "mlflow_v1")


def body_of(vector: dict[str, Any]) -> bytes:
    return (PAYLOADS / vector["body_file"]).read_bytes()


def check(vector: dict[str, Any], *, body: bytes | None = None, secrets: tuple[str, ...] = (), now: datetime = SIGNED_AT) -> str | None:
    headers = {name.lower(): value for name, value in vector["headers"].items()}
    signed = Signed(headers, body_of(vector) if body is None else body, secrets or (vector["secret"],), now, 300.0)
    return proven(FORMAT_OF[vector["scheme"]], signed)


def proven(name: str, signed: Signed) -> str | None:
    return prove(signatures.OF_FORMAT[name], signed)


def by_name(scheme: str) -> dict[str, Any]:
    return next(v for v in VECTORS if v["scheme"] == scheme)


@every_vector
def test_a_message_that_its_sender_proved_is_believed(vector: dict[str, Any]) -> None:
    assert check(vector) is None


@every_vector
def test_another_secret_proves_nothing(vector: dict[str, Any]) -> None:
    assert check(vector, secrets=("another",)) is not None


@every_vector
def test_the_old_and_the_new_secret_are_valid_while_one_replaces_the_other(vector: dict[str, Any]) -> None:
    assert check(vector, secrets=("the next one", vector["secret"])) is None
    assert check(vector, secrets=(vector["secret"], "the one before")) is None


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(OF_THE_BODY), st.integers(min_value=0), st.integers(1, 255))
def test_one_flipped_byte_is_noticed(scheme: str, at: int, flip: int) -> None:
    body = bytearray(body_of(by_name(scheme)))
    body[at % len(body)] ^= flip
    assert check(by_name(scheme), body=bytes(body)) is not None


@pytest.mark.parametrize("scheme", TIMED)
@pytest.mark.parametrize("away_s", [-301, 301, 86_400])
def test_a_copy_is_worth_nothing_after_the_replay_window(scheme: str, away_s: int) -> None:
    later = datetime.fromtimestamp(SIGNED_AT.timestamp() + away_s, UTC)
    assert "the timestamp is more than 300 s away" in str(check(by_name(scheme), now=later))
    near = datetime.fromtimestamp(SIGNED_AT.timestamp() + (299 if away_s > 0 else -299), UTC)
    assert check(by_name(scheme), now=near) is None


@pytest.mark.parametrize("scheme", TIMED)
@pytest.mark.parametrize("stamp", ["", "soon", "-1", "1" * 30, "١٧٨٩٣٧٤٣٠١", "1789374302"])
def test_a_timestamp_that_was_changed_or_is_none_proves_nothing(scheme: str, stamp: str) -> None:
    vector = by_name(scheme)
    headers = {name: stamp if name.lower().endswith("timestamp") else value for name, value in vector["headers"].items()}
    assert check(vector | {"headers": headers}) is not None


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(sorted(signatures.OF_FORMAT)), st.text(st.characters(codec="latin-1"), max_size=40), st.binary(max_size=20))
def test_no_header_and_no_body_break_a_check(name: str, value: str, body: bytes) -> None:
    headers = dict.fromkeys((*signatures.SIGNATURES, "x-slack-request-timestamp", "x-mlflow-timestamp"), value)
    assert proven(name, Signed(headers, body, ("secret",), SIGNED_AT, 300.0)) is not None


def test_the_older_form_of_mlflow_is_believed_too() -> None:
    body = body_of(by_name("mlflow_v1"))
    headers = {"x-mlflow-signature": f"sha256={signatures._hex('mlflow-test-secret', body)}"}
    assert proven("mlflow", Signed(headers, body, ("mlflow-test-secret",), SIGNED_AT, 300.0)) is None


# Through the door


def post(client: TestClient, vector: dict[str, Any], **changed: str) -> Any:
    where = f"/webhooks/{FORMAT_OF[vector['scheme']]}"
    return client.post(where, content=body_of(vector), headers=vector["headers"] | {"Content-Type": "application/json"} | changed)


@every_vector
def test_a_signed_message_needs_no_token(
    anonymous: TestClient, clock: Clock, monkeypatch: pytest.MonkeyPatch, vector: dict[str, Any]
) -> None:
    clock.at = SIGNED_AT
    variable = f"MLRUNBOOK_WEBHOOK_SECRET_{FORMAT_OF[vector['scheme']].upper()}"
    monkeypatch.delenv(variable, raising=False)
    assert post(anonymous, vector).status_code == 401
    monkeypatch.setenv(variable, "wrong")
    refused = post(anonymous, vector)
    assert refused.status_code == 401
    assert "wrong" not in refused.text
    assert vector["secret"] not in refused.text
    monkeypatch.setenv(variable, f"the-next, {vector['secret']}")
    assert post(anonymous, vector).status_code == 202


def test_a_token_works_beside_any_signature_and_must_have_the_scope(
    anonymous: TestClient, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLRUNBOOK_WEBHOOK_SECRET_GRAFANA", "of another Grafana")
    vector = by_name("grafana_hmac_body")
    assert post(anonymous, vector, **keys.of("grafana", Scope.ALERTS)).status_code == 202
    assert post(anonymous, vector, **keys.of("a reader", Scope.READ)).status_code == 403


def test_a_wrong_signature_is_answered_with_what_to_check_and_not_with_what_is_set_here(
    anonymous: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLRUNBOOK_WEBHOOK_SECRET_GRAFANA", raising=False)
    unset = post(anonymous, by_name("grafana_hmac_body")).json()
    monkeypatch.setenv("MLRUNBOOK_WEBHOOK_SECRET_GRAFANA", "another")
    assert post(anonymous, by_name("grafana_hmac_body")).json() == unset
    assert "MLRUNBOOK_WEBHOOK_SECRET_GRAFANA" in unset["detail"]


@pytest.mark.parametrize("form", sorted(signatures.OF_FORMAT))
@pytest.mark.parametrize("given_", [{}, {"Authorization": "Bearer mlrb_nobody"}, {"signed wrongly": ""}])
def test_who_is_not_proven_hears_which_headers_the_format_takes(anonymous: TestClient, form: str, given_: dict[str, str]) -> None:
    over_body = signatures.proofs_of(form)[1]
    headers = {name: "v1=0" for name in over_body} if "signed wrongly" in given_ else given_
    answer = anonymous.post(f"/webhooks/{form}", json={}, headers=headers)
    assert answer.status_code == 401
    said = answer.json()["detail"].casefold()
    for header in (*signatures.OF_FORMAT[form], "authorization: bearer"):
        assert header in said


@pytest.mark.parametrize("path", ["/webhooks/graphana", "/webhooks/Grafana", "/webhooks/x/y/z", "/webhooks/", "/webhooks"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_webhook_that_there_is_not_is_answered_with_those_that_there_are(anonymous: TestClient, method: str, path: str) -> None:
    answer = anonymous.request(method, path)
    assert answer.status_code == 404
    assert all(f"/webhooks/{form}" in answer.json()["detail"] for form in (*FORMATS, "pagerduty-events"))
    if "ra" in path:
        assert "did you mean /webhooks/grafana?" in answer.json()["detail"]


def test_what_else_is_not_there_says_nothing_of_webhooks(anonymous: TestClient) -> None:
    assert "webhooks" not in anonymous.get("/nowhere").text
