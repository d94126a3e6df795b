"""Amazon SNS: its signature is checked with our own copy of the certificate, and what it asks a person is shown to one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from mlrunbook.base.settings import settings
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.app import create_app
from mlrunbook.gateway.webhooks import proofs
from mlrunbook.gateway.webhooks.sns_signature import text_to_sign
from mlrunbook.response.world import World
from mlrunbook.store import incidents, quarantine
from tests.gateway.conftest import Clock, Keys, world_on

TOPIC = "arn:aws:sns:eu-west-1:000000000000:ml-alarms"
HASH = {"1": hashes.SHA1(), "2": hashes.SHA256()}
CONFIRM = "https://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription&TopicArn=" + TOPIC + "&Token=" + "2336412f37" * 30
INTAKE = {
    "sns_topics": ["arn:aws:sns:eu-west-1:000000000000:ml-*"],
    "generic": {"watch": {"json_in": ["Message"], "model": "Message.model", "name": "Message.name", "fingerprint": "Message.id"}},
}


class Signer:
    """Holds a key, and a certificate of it."""

    def __init__(self, now: datetime) -> None:
        self.key = rsa.generate_private_key(65537, 2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
        made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self.key.public_key()).serial_number(1)
        dated = made.not_valid_before(now - timedelta(days=60)).not_valid_after(now + timedelta(days=60))
        self.pem = dated.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def signed(self, message: dict[str, Any], version: str = "2") -> dict[str, Any]:
        whole = {"SignatureVersion": version, "SigningCertURL": "https://sns.eu-west-1.amazonaws.com/a.pem"} | message
        signature = self.key.sign(text_to_sign(whole), padding.PKCS1v15(), HASH.get(version, hashes.SHA256()))
        return whole | {"Signature": base64.b64encode(signature).decode()}


@pytest.fixture(scope="module")
def sns_world(engine: Engine) -> World:
    return world_on(engine, Clock(), Policy.model_validate({"intake": INTAKE}))


@pytest.fixture(scope="module")
def http(sns_world: World) -> Iterator[TestClient]:
    with TestClient(create_app(sns_world)) as client:
        yield client


@pytest.fixture(scope="module")
def amazon(sns_world: World) -> Signer:
    return Signer(sns_world.now())


@pytest.fixture
def certificates(amazon: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "sns.pem").write_text(amazon.pem)
    monkeypatch.setenv("MLRUNBOOK_SNS_CERTIFICATES", str(tmp_path))
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


def notification(world: World, model: str, **more: Any) -> dict[str, Any]:
    return {
        "Type": "Notification",
        "MessageId": f"m-{model}",
        "TopicArn": TOPIC,
        "Message": json.dumps({"model": model, "name": "ModelF1Drop\n", "id": "1"}),
        "Timestamp": world.now().isoformat().replace("+00:00", "Z"),
    } | more


def post(http: TestClient, message: Any, **headers: str) -> Any:
    sent = {"x-amz-sns-message-type": str(message.get("Type")), "Content-Type": "text/plain; charset=UTF-8"} | headers
    return http.post("/webhooks/generic/watch", content=json.dumps(message), headers=sent)


def opened(world: World, model: str) -> int:
    with world.transaction() as conn:
        return len(incidents.find(conn, model=model))


@pytest.mark.usefixtures("certificates")
class TestTheSignature:
    @pytest.mark.parametrize("version", ["1", "2"])
    @pytest.mark.parametrize("more", [{}, {"Subject": "ALARM: scoring"}])
    def test_lets_its_topic_in(
        self, http: TestClient, sns_world: World, amazon: Signer, model: str, version: str, more: dict[str, str]
    ) -> None:
        answer = post(http, amazon.signed(notification(sns_world, model, **more), version))
        assert answer.status_code == 202
        assert opened(sns_world, model) == 1

    def test_counts_as_the_sender_s_proof(self, http: TestClient, sns_world: World, amazon: Signer, model: str) -> None:
        assert post(http, amazon.signed(notification(sns_world, model, Message="no JSON"))).json()["quarantined"] == 1
        with sns_world.transaction() as conn:
            kept = quarantine.get(conn, quarantine.find(conn, limit=1)[0].id)
            sender = proofs.sender_of(conn, kept, now=sns_world.now(), window_s=300.0)
        assert sender.proven_as("generic") == "generic"
        assert proofs.sentence(kept.proof) == "by the signature of Amazon SNS"

    @pytest.mark.parametrize("field", ["Message", "MessageId", "Timestamp", "TopicArn", "Type", "Subject"])
    def test_is_over_every_field_that_counts(self, http: TestClient, sns_world: World, amazon: Signer, model: str, field: str) -> None:
        changed = {
            "Message": json.dumps({"model": model, "name": "Other", "id": "2"}),
            "Timestamp": sns_world.now().isoformat(),
            "TopicArn": TOPIC.replace("alarms", "others"),
            "Type": "SubscriptionConfirmation",
        }
        signed = amazon.signed(notification(sns_world, model))
        assert post(http, signed | {field: changed.get(field, "other")}).status_code == 401
        assert opened(sns_world, model) == 0

    @pytest.mark.parametrize(
        "more",
        [
            {"TopicArn": "arn:aws:sns:eu-west-1:999999999999:ml-alarms"},
            {"SigningCertURL": "https://sns.eu-west-1.amazonaws.com.example.com/a.pem"},
            {"SigningCertURL": "https://example.com/sns.eu-west-1.amazonaws.com/a.pem"},
            {"SigningCertURL": "http://sns.eu-west-1.amazonaws.com/a.pem"},
            {"SigningCertURL": "https://sns.eu-west-1.amazonaws.com@example.com/a.pem"},
            {"SigningCertURL": "https://[sns/a.pem"},
            {"SignatureVersion": "3"},
        ],
    )
    def test_of_anybody_else_proves_nothing(
        self, http: TestClient, sns_world: World, amazon: Signer, model: str, more: dict[str, str]
    ) -> None:
        assert post(http, amazon.signed(notification(sns_world, model, **more), more.get("SignatureVersion", "2"))).status_code == 401
        assert opened(sns_world, model) == 0

    def test_of_another_key_proves_nothing(self, http: TestClient, sns_world: World, model: str) -> None:
        assert post(http, Signer(sns_world.now()).signed(notification(sns_world, model))).status_code == 401

    @pytest.mark.parametrize("moved", [timedelta(days=90), timedelta(days=-90)])
    def test_of_a_certificate_out_of_date_proves_nothing(
        self, http: TestClient, sns_world: World, certificates: Path, model: str, moved: timedelta
    ) -> None:
        other = Signer(sns_world.now() + moved)
        (certificates / "sns.pem").write_text(other.pem)
        assert post(http, other.signed(notification(sns_world, model))).status_code == 401

    def test_of_two_certificates_one_is_enough(self, http: TestClient, sns_world: World, certificates: Path, model: str) -> None:
        newer = Signer(sns_world.now())
        (certificates / "newer.pem").write_text(newer.pem)
        (certificates / "broken.pem").write_text("no certificate")
        assert post(http, newer.signed(notification(sns_world, model))).status_code == 202

    @pytest.mark.parametrize(("minutes", "status"), [(50, 202), (-50, 202), (70, 401), (-70, 401)])
    def test_is_worth_nothing_once_sns_would_not_try_again(
        self, http: TestClient, sns_world: World, amazon: Signer, model: str, minutes: int, status: int
    ) -> None:
        sent = (sns_world.now() - timedelta(minutes=minutes)).isoformat()
        assert post(http, amazon.signed(notification(sns_world, model, Timestamp=sent))).status_code == status

    def test_a_message_that_comes_twice_counts_once(self, http: TestClient, sns_world: World, amazon: Signer, model: str) -> None:
        signed = amazon.signed(notification(sns_world, model))
        first, again = post(http, signed).json(), post(http, signed).json()
        assert (again["duplicate"], again["incidents"]) == (True, first["incidents"])

    @pytest.mark.parametrize("body", ["", "[]", "{}", '{"Type": 5}', '{"Type": "Notification"}', "[" * 3_000, '{"Type": ["Notification"]}'])
    def test_of_what_is_no_message_is_refused(self, http: TestClient, body: str) -> None:
        answer = http.post("/webhooks/generic/watch", content=body, headers={"x-amz-sns-message-type": "Notification"})
        assert answer.status_code == 401

    def test_a_public_certificate_is_no_secret(self, http: TestClient, sns_world: World, amazon: Signer, model: str) -> None:
        body = json.dumps({"Message": {"model": model, "name": "A", "id": "1"}}).encode()
        signature = hmac.digest(amazon.pem.strip().encode(), body, hashlib.sha256).hex()
        headers = {"X-Hub-Signature-256": f"sha256={signature}", "x-amz-sns-message-type": "Notification"}
        assert http.post("/webhooks/generic/watch", content=body, headers=headers).status_code == 401


def test_without_a_certificate_it_proves_nothing_and_a_token_still_does(
    http: TestClient, sns_world: World, amazon: Signer, keys: Keys, model: str
) -> None:
    signed = amazon.signed(notification(sns_world, model))
    answer = post(http, signed)
    assert answer.status_code == 401
    assert "MLRUNBOOK_SNS_CERTIFICATES" in answer.text
    assert post(http, signed, **keys.of("the topic")).status_code == 202
    basic = base64.b64encode(f"sns:{keys.token('the topic again')}".encode()).decode()
    assert post(http, signed, Authorization=f"Basic {basic}").json()["duplicate"] is False, "another sender's number is another message"


@pytest.mark.usefixtures("certificates")
class TestWhatAPersonHasToDo:
    @pytest.mark.parametrize("kind", ["SubscriptionConfirmation", "UnsubscribeConfirmation"])
    def test_is_shown_with_the_whole_address(self, http: TestClient, sns_world: World, amazon: Signer, keys: Keys, kind: str) -> None:
        asked = notification(sns_world, "x", Type=kind, Token="t", SubscribeURL=CONFIRM, MessageId=f"m-{kind}")
        assert post(http, amazon.signed(asked)).json()["quarantined"] == 1
        (kept,) = http.get("/api/v1/quarantine", params={"limit": 1}, headers=keys.of("a person")).json()["quarantined"]
        assert CONFIRM in kept["error"]
        assert TOPIC in kept["error"]

    @pytest.mark.parametrize("url", ["https://example.com/confirm", "http://sns.eu-west-1.amazonaws.com/?Action=ConfirmSubscription", "x"])
    def test_nobody_is_told_to_open_an_address_that_is_not_amazon_s(
        self, http: TestClient, sns_world: World, amazon: Signer, keys: Keys, url: str
    ) -> None:
        asked = notification(sns_world, "x", Type="SubscriptionConfirmation", Token="t", SubscribeURL=url)
        assert post(http, amazon.signed(asked)).json()["quarantined"] == 1
        (kept,) = http.get("/api/v1/quarantine", params={"limit": 1}, headers=keys.of("a person")).json()["quarantined"]
        assert "do not" in kept["error"]

    def test_of_a_topic_that_policy_does_not_list_it_says_so(self, http: TestClient, sns_world: World, keys: Keys) -> None:
        topic = "arn:aws:sns:eu-west-1:999999999999:other"
        asked = notification(sns_world, "x", Type="SubscriptionConfirmation", Token="t", SubscribeURL=CONFIRM, TopicArn=topic)
        assert post(http, asked, **keys.of("somebody")).json()["quarantined"] == 1
        (kept,) = http.get("/api/v1/quarantine", params={"limit": 1}, headers=keys.of("a person")).json()["quarantined"]
        assert "intake.sns_topics does not list" in kept["error"]
