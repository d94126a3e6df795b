"""What somebody says who has proven nothing, or whom policy does not trust, opens an incident and pages; production waits for a person or
for a measurement."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from mlrunbook.base import tokens
from mlrunbook.base.tokens import Limits, Scope
from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.policy.intake import Trust
from mlrunbook.gateway.app import create_app
from mlrunbook.gateway.webhooks import samples
from mlrunbook.response.world import World
from mlrunbook.store import outbox
from tests.fakes import MODEL, Clock, FileWorld, empty_store
from tests.response.carrying import carry
from tests.response.people import incident_of, plan, say, told

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette would rather have another HTTP client than the one the product uses
    from fastapi.testclient import TestClient

ISOLATED = {"isolate:True": 1}
ANYBODY, LIMITED, OPERATOR = "anybody", "limited", "operator"
WEBHOOK, REPORTS = "/webhooks/alertmanager", f"/api/v1/model-governance/{MODEL}/incidents"


@pytest.fixture
def http(world: World) -> Iterator[TestClient]:
    with TestClient(create_app(world), raise_server_exceptions=False) as client:
        yield client


def key(world: World, holder: str) -> dict[str, str]:
    scopes = [Scope.ALERTS, Scope.REPORT] + ([Scope.OPERATE] if holder == OPERATOR else [])
    limits = Limits(senders=("alertmanager", "report")) if holder == LIMITED else Limits()
    with world.transaction() as conn:
        return {"Authorization": f"Bearer {tokens.create(conn, name=holder, scopes=scopes, limits=limits)}"}


def token(world: World, name: str, scopes: list[Scope], role: str) -> str:
    with world.transaction() as conn:
        return tokens.create(conn, name=name, scopes=scopes, role=role)


def later(world: World) -> dict[str, Any]:
    """Of the same kind, anew."""
    (one,) = alert("ModelProbed")["alerts"]
    return dict(one) | {"startsAt": world.now().isoformat()}


def alert(name: str, severity: str = "critical", **labels: str) -> dict[str, Any]:
    one = {"model": MODEL, "alertname": name, "severity": severity} | labels
    fired = {"status": "firing", "labels": one, "annotations": {"summary": f"{name} fired"}, "startsAt": "2026-03-29T00:00:00Z"}
    return {"version": "4", "alerts": [fired]}


def reported(type_: str, severity: str, **more: str) -> dict[str, Any]:
    return {"severity": severity, "type": type_, "description": "somebody stole the token", "reportedBy": "VP Engineering"} | more


CLAIMS = [
    *((WEBHOOK, alert(name)) for name in ("ModelProbed", "CriticalFailureMissed", "AllAssetsHighRisk", "ModelF1Drop", "FeatureDrift")),
    *((WEBHOOK, alert("Foo", level, incident_type=type_)) for type_ in ("security", "compliance") for level in ("info", "critical")),
    (WEBHOOK, alert("Foo", incident_type="security", subtype="data_leakage")),
    *(
        (REPORTS, reported(type_, severity))
        for type_ in ("performance_degradation", "prediction_error", "security", "compliance", "infrastructure", "bias_fairness")
        for severity in ("medium", "high", "critical")
    ),
    (REPORTS, reported("security", "critical", subtype="adversarial_attack")),
    (REPORTS, reported("compliance", "critical", subtype="privacy_breach")),
]


def post(http: TestClient, world: World, where: str, body: dict[str, Any], holder: str) -> str:
    answer = http.post(where, json=body, headers=key(world, holder))
    assert answer.is_success, answer.text
    return str(answer.json()["id"] if where == REPORTS else answer.json()["incidents"][0])


def paged(world: World, incident_id: str) -> bool:
    with world.transaction() as conn:
        return bool(outbox.of_incident(conn, incident_id, "page"))


@pytest.fixture
def sound(file_world: FileWorld) -> None:
    """Nothing is wrong with the model."""
    file_world.set(bad_versions={})


@pytest.mark.usefixtures("sound")
@pytest.mark.parametrize(("where", "body"), CLAIMS)
def test_the_word_of_anybody_changes_nothing_in_production(
    world: World, file_world: FileWorld, http: TestClient, where: str, body: dict[str, Any]
) -> None:
    incident_id = post(http, world, where, body, ANYBODY)
    carry(world, incident_id, "run-1")
    assert file_world.applied == {}
    assert paged(world, incident_id)


@pytest.mark.usefixtures("sound")
@pytest.mark.parametrize("holder", [LIMITED, OPERATOR])
@pytest.mark.parametrize(
    ("where", "body"),
    [
        (WEBHOOK, alert("ModelProbed")),
        (WEBHOOK, alert("Foo", incident_type="security")),
        (REPORTS, reported("security", "high")),
    ],
)
def test_a_proven_sender_that_policy_trusts_is_believed(
    world: World, file_world: FileWorld, http: TestClient, where: str, body: dict[str, Any], holder: str
) -> None:
    carry(world, post(http, world, where, body, holder), "run-1")
    assert file_world.applied == ISOLATED


@pytest.mark.usefixtures("sound")
def test_a_sender_that_signs_is_believed(world: World, file_world: FileWorld, http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLRUNBOOK_WEBHOOK_SECRET_GENERIC", "a secret")
    body = json.dumps({"model": MODEL, "kind": "ModelProbed", "status": "firing"}).encode()
    headers = {"Content-Type": "application/json"} | samples.proof("generic", "a secret", body, world.now())
    (incident_id,) = http.post("/webhooks/generic", content=body, headers=headers).json()["incidents"]
    carry(world, incident_id, "run-1")
    assert file_world.applied == ISOLATED


def trusting(world: World, **senders: tuple[str, ...]) -> World:
    intake = replace(world.policy.intake, trusted_for=Trust(**senders))
    return replace(world, policy=world.policy.model_copy(update={"intake": intake}))


@pytest.mark.usefixtures("sound")
def test_a_proven_sender_that_policy_does_not_trust_for_isolation_waits_for_a_person_who_may_isolate(
    world: World, file_world: FileWorld, http: TestClient
) -> None:
    wary = trusting(world, isolation=("mlrunbook",))
    incident_id = post(http, world, WEBHOOK, alert("ModelProbed"), LIMITED)
    carry(wary, incident_id, "run-1")
    assert file_world.applied == {}
    offered = plan(wary, incident_id, PlanKind.ISOLATION)
    assert offered is not None
    said = " ".join([*offered.reasons, *told(wary, incident_id, "containment")])
    assert "limited" in said
    assert "intake.trusted_for.isolation" in said
    say(wary, incident_id, "approved", PlanKind.ISOLATION, by="Security", role="security_officer")
    carry(wary, incident_id, "run-1")
    assert file_world.applied == ISOLATED


@pytest.mark.usefixtures("sound")
@pytest.mark.parametrize("subtype", [None, "privacy_breach"])
def test_a_word_that_nobody_trusts_makes_no_breach_of_what_a_trusted_one_calls_harmless(
    world: World, file_world: FileWorld, http: TestClient, subtype: str | None
) -> None:
    question = reported("compliance", "high") | {"description": "Who has signed the model card?", "subtype": "audit_failure"}
    incident_id = post(http, world, REPORTS, question, OPERATOR)
    worse = reported("compliance", "critical") | ({"subtype": subtype} if subtype else {})
    assert post(http, world, REPORTS, worse, ANYBODY) == incident_id
    assert post(http, world, WEBHOOK, alert("Leak", incident_type="compliance", subtype="privacy_breach"), ANYBODY) == incident_id
    carry(world, incident_id, "run-1")
    assert file_world.applied == {}
    post(http, world, REPORTS, reported("compliance", "critical", subtype="privacy_breach"), OPERATOR)
    carry(world, incident_id, "run-2")
    assert file_world.applied == ISOLATED


@pytest.mark.usefixtures("sound")
def test_what_was_proven_once_does_not_prove_the_alert_that_opens_it_again(
    world: World, file_world: FileWorld, http: TestClient, clock: Clock
) -> None:
    incident_id = post(http, world, REPORTS, reported("security", "high"), OPERATOR)
    carry(world, incident_id, "run-1")
    security = {"Authorization": f"Bearer {token(world, 'Security', [Scope.OPERATE], 'security_officer')}"}
    closed = http.post(f"/api/v1/incidents/{incident_id}/close", json={"reason": "handed over"}, headers=security)
    assert closed.is_success, closed.text
    before = file_world.applied
    clock.advance(minutes=5)
    again = post(http, world, WEBHOOK, alert("ModelProbed") | {"alerts": [later(world)]}, ANYBODY)
    carry(world, again, "run-2")
    assert (again, file_world.applied) == (incident_id, before)


def test_what_triage_measures_itself_is_contained_whoever_reports_it(world: World, file_world: FileWorld, http: TestClient) -> None:
    expected, before = dict[str, dict[str, int]](), dict(file_world.state)
    for holder in (LIMITED, ANYBODY):
        file_world.set(**before)
        incident_id = post(http, world, WEBHOOK, alert("ModelF1Drop", "warning"), holder)
        carry(world, incident_id, "run-1")
        expected[holder] = file_world.applied
        assert incident_of(world, incident_id).severity.at_least(Severity.HIGH)
        empty_store(world.engine)
    assert expected[ANYBODY] == expected[LIMITED] != {}


def test_the_plan_says_whose_word_was_not_enough(world: World, file_world: FileWorld, http: TestClient, sound: None) -> None:
    incident_id = post(http, world, REPORTS, reported("prediction_error", "critical"), ANYBODY)
    carry(world, incident_id, "run-1")
    offered = plan(world, incident_id, PlanKind.MITIGATION)
    assert offered is not None
    said = " ".join(offered.reasons)
    assert "VP Engineering" in said
    assert "waits for a person" in said
    assert any("waits for a person" in entry for entry in told(world, incident_id, "containment"))
