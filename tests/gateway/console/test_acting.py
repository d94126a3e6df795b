"""What a person does to an incident in the console: the same effect as over the API, and nothing without their word."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlrunbook.base.tokens import Scope
from mlrunbook.domain.communication.regulatory import Clock
from mlrunbook.domain.incident import ClockName, Status
from mlrunbook.response.lifecycle import flapping
from mlrunbook.response.world import World
from mlrunbook.store import incidents, regulatory_clocks
from tests.gateway.api.test_incidents import contained, opened, proposed
from tests.gateway.conftest import Clock as Time
from tests.gateway.conftest import Keys
from tests.gateway.console.conftest import Browser, SignIn
from tests.gateway.console.test_authorization import guarded
from tests.gateway.console.world_of import effect, everything
from tests.gateway.test_authorization import url_of

HOSTILE = "<script>alert(1)</script> {{ 7919*7919 }} \x1b[31m \"'><img src=x onerror=alert(2)>"


@dataclass(frozen=True)
class Same:
    """One act by two doors: the path and body of the API, the path and fields of the form. `{digest}`: of the plan that waits."""

    api: str
    body: dict[str, Any]
    page: str
    form: dict[str, str] = field(default_factory=dict)
    before: Callable[[TestClient, World, str, str], object] = lambda client, world, incident_id, model: None


def _resolved(_: TestClient, world: World, incident_id: str, __: str) -> None:
    with world.transaction() as conn:
        incidents.set_status(conn, incident_id, Status.RESOLVED, why="F1 is back", actor="test", now=world.now())


def _contained(_: TestClient, world: World, incident_id: str, model: str) -> None:
    contained(world, incident_id, model)


def _clock(client: TestClient, _: World, incident_id: str, __: str) -> None:
    assert client.post(f"/api/v1/incidents/{incident_id}/clocks/gdpr", json={"case": "personal_data"}).status_code == 200


ACTS = {
    "acknowledge": Same("acknowledge", {}, "acknowledge"),
    "resolve": Same("resolve", {"what": "a new pod", "rootCause": "a leak"}, "resolve", {"what": "a new pod", "root_cause": "a leak"}),
    "close": Same("close", {}, "close", before=_resolved),
    "close with a reason": Same("close", {"reason": "looked at"}, "close", {"reason": "looked at"}),
    "call it a false alarm": Same("close", {"reason": "a test", "falseAlarm": True}, "close", {"reason": "a test", "false_alarm": "true"}),
    "keep containment": Same(
        "close",
        {"reason": "it stays", "keepContainment": True},
        "close",
        {"reason": "it stays", "keep_containment": "true"},
        before=_contained,
    ),
    "raise": Same(
        "severity", {"severity": "critical", "reason": "a gear broke"}, "severity", {"severity": "critical", "reason": "a gear broke"}
    ),
    "lower": Same("severity", {"severity": "low", "reason": "one asset"}, "severity", {"severity": "low", "reason": "one asset"}),
    "hand over": Same(
        "handover",
        {"role": "ml_team_lead", "to": "Kim", "note": "until six"},
        "handover",
        {"role": "ml_team_lead", "to": "Kim", "note": "until six"},
    ),
    "approve": Same(
        "approvals",
        {"decision": "approved", "planDigest": "{digest}", "reason": "sound"},
        "approve?plan={digest}",
        {"plan_digest": "{digest}", "reason": "sound"},
        before=lambda client, world, incident_id, model: proposed(world, incident_id, model),
    ),
    "reject": Same(
        "approvals",
        {"decision": "rejected", "planDigest": "{digest}", "reason": "too early"},
        "reject?plan={digest}",
        {"plan_digest": "{digest}", "reason": "too early"},
        before=lambda client, world, incident_id, model: proposed(world, incident_id, model),
    ),
    "stop serving": Same(
        "containment", {"order": "stop_serving", "reason": "pumps fail"}, "contain", {"order": "stop_serving", "reason": "pumps fail"}
    ),
    "halt work orders": Same(
        "containment",
        {"order": "halt_work_orders", "reason": "pumps fail"},
        "contain",
        {"order": "halt_work_orders", "reason": "pumps fail"},
    ),
    "take back": Same(
        "containment", {"order": "take_back", "reason": "it is over"}, "reverse", {"reason": "it is over"}, before=_contained
    ),
    "start a clock": Same("clocks/gdpr", {"case": "personal_data"}, "clocks/gdpr", {"case": "personal_data"}),
    "record a notification": Same(
        "clocks/gdpr/notification", {"reference": "DPA-7"}, "clocks/gdpr/notification", {"reference": "DPA-7"}, before=_clock
    ),
}
NEEDS_WORDS = {
    "resolve": {"what": " "},
    "severity": {"severity": "low", "reason": " "},
    "contain": {"order": "stop_serving", "reason": ""},
    "close": {"reason": "", "false_alarm": "true"},
    "handover": {"role": "ml_team_lead", "to": ""},
    "clocks/gdpr": {},
}


@pytest.fixture
def lead(sign_in: SignIn, keys: Keys, clock: Time) -> Browser:
    return sign_in(keys.token("the lead", role="ml_team_lead"))


def filled(values: dict[str, Any], digest: object) -> dict[str, Any]:
    return {name: str(digest) if value == "{digest}" else value for name, value in values.items()}


@pytest.mark.parametrize("name", ACTS)
def test_an_act_has_the_same_effect_by_both_doors(client: TestClient, world: World, lead: Browser, model: str, name: str) -> None:
    act, found = ACTS[name], []
    for door in ("api", "console"):
        of = f"{model}_{door}"
        incident_id = opened(client, of, severity="medium")
        digest = act.before(client, world, incident_id, of)
        if door == "api":
            answer = client.post(f"/api/v1/incidents/{incident_id}/{act.api}", json=filled(act.body, digest))
            assert answer.status_code < 300, answer.text
        else:
            page = act.page.replace("{digest}", str(digest))
            assert lead.get(f"/incidents/{incident_id}/{page}".replace("/notification", "")).status_code == 200
            answer = lead.submit(f"/incidents/{incident_id}/{page}", filled(act.form, digest), follow_redirects=False)
            assert answer.status_code == 303, answer.text
            assert answer.headers["location"].startswith(f"/incidents/{incident_id}?did=")
        found.append(effect(world, incident_id))
    assert found[0] == found[1]


def test_a_decision_made_here_counts_as_by_a_person_through_this_door(client: TestClient, world: World, lead: Browser, model: str) -> None:
    incident_id = opened(client, model)
    digest = proposed(world, incident_id, model)
    answer = lead.submit(f"/incidents/{incident_id}/approve?plan={digest}", {"plan_digest": digest}, follow_redirects=False)
    assert answer.status_code == 303
    [row] = client.get(f"/api/v1/incidents/{incident_id}").json()["approvals"]
    assert (row["door"], row["verified"], row["person"]) == ("console", True, "the lead")
    assert client.get(f"/api/v1/incidents/{incident_id}").json()["plans"][0]["decision"] == "approved"


def test_the_api_does_not_pass_for_the_console(client: TestClient, world: World, model: str) -> None:
    incident_id = opened(client, model)
    body = {"decision": "approved", "planDigest": proposed(world, incident_id, model), "door": "console"}
    assert client.post(f"/api/v1/incidents/{incident_id}/approvals", json=body).status_code == 422


@pytest.mark.parametrize("path", NEEDS_WORDS)
def test_what_is_missing_is_named_at_its_field_and_nothing_is_done(world: World, lead: Browser, incident: str, path: str) -> None:
    before = everything(world)
    answer = lead.submit(f"/incidents/{incident}/{path}", NEEDS_WORDS[path])
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert 'class="fault"' in answer.text
    assert everything(world) == before


def test_what_was_typed_is_still_there_when_something_is_wrong(lead: Browser, incident: str) -> None:
    answer = lead.submit(f"/incidents/{incident}/handover", {"role": "nobody", "to": "Kim", "note": "two\r\nlines"})
    assert answer.status_code == 422
    assert 'value="Kim"' in answer.text
    assert re.search(r"<textarea[^>]*>\ntwo\nlines</textarea>", answer.text)


def test_who_may_not_operate_reads_why_in_a_page(world: World, sign_in: SignIn, keys: Keys, incident: str) -> None:
    reader = sign_in(keys.token("a reader", Scope.READ))
    before = everything(world)
    for path, form in (("acknowledge", {}), ("close", {"reason": "x"}), ("contain", {"order": "stop_serving", "reason": "x"})):
        for answer in (reader.get(f"/incidents/{incident}/{path}"), reader.submit(f"/incidents/{incident}/{path}", form)):
            assert answer.status_code == 403
            assert answer.headers["content-type"].startswith("text/html")
            assert "a reader" in answer.text
    assert everything(world) == before


def test_a_role_that_may_not_order_it_reads_who_may(world: World, sign_in: SignIn, keys: Keys, incident: str) -> None:
    auditor = sign_in(keys.token("an auditor", role="compliance_officer"))
    before = everything(world)
    assert "On-Call ML Engineer" in auditor.get(f"/incidents/{incident}/contain").text
    answer = auditor.submit(f"/incidents/{incident}/contain", {"order": "stop_serving", "reason": "x"})
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (409, "text/html")
    assert everything(world) == before


@pytest.mark.parametrize("csrf", ["", "0" * 64])
def test_a_form_of_another_page_does_nothing(world: World, lead: Browser, incident: str, csrf: str) -> None:
    before = everything(world)
    for path, form in (
        ("acknowledge", {}),
        ("severity", {"severity": "low", "reason": "x"}),
        ("contain", {"order": "stop_serving", "reason": "x"}),
    ):
        answer = lead.post(f"/incidents/{incident}/{path}", data={**form, "csrf": csrf} if csrf else form)
        assert answer.status_code == 403
    assert everything(world) == before


def test_looking_changes_nothing(client: TestClient, world: World, lead: Browser, model: str) -> None:
    incident_id = opened(client, model)
    proposed(world, incident_id, model)
    _contained(client, world, incident_id, model)
    _clock(client, world, incident_id, model)
    over = opened(client, f"{model}_over")
    client.post(f"/api/v1/incidents/{over}/close", json={"reason": "a test"})
    paths = [url_of(path) for method, path, _ in guarded(lead) if method == "GET" and not path.endswith(("/events", "/history"))]
    before = everything(world)
    for path in paths:
        for one in (incident_id, over):
            answer = lead.get(re.sub(r"/incidents/[^/.]+", f"/incidents/{one}", path))
            assert answer.status_code in (200, 404, 409, 422), path
    for query in ("contain?order=stop_serving", "contain?order=route", "rehearsal?order=take_back", "rehearsal?order=route&version=v1"):
        assert lead.get(f"/incidents/{incident_id}/{query}").status_code == 200
    assert everything(world) == before


def test_what_is_over_says_so_and_takes_no_act(client: TestClient, world: World, lead: Browser, incident: str) -> None:
    client.post(f"/api/v1/incidents/{incident}/close", json={"reason": "a test"})
    before = everything(world)
    for path, form in (("acknowledge", {}), ("resolve", {"what": "x"}), ("severity", {"severity": "low", "reason": "x"})):
        assert "is over" in lead.get(f"/incidents/{incident}/{path}").text
        assert lead.submit(f"/incidents/{incident}/{path}", form).status_code == 409
    assert everything(world) == before


def test_what_stays_in_force_is_listed_before_it_is_closed(client: TestClient, world: World, lead: Browser, model: str) -> None:
    incident_id = opened(client, model)
    _contained(client, world, incident_id, model)
    assert "require human approval for all predictions" in lead.get(f"/incidents/{incident_id}/close").text
    answer = lead.submit(f"/incidents/{incident_id}/close", {"reason": "over"})
    assert answer.status_code == 409
    assert client.get(f"/api/v1/incidents/{incident_id}").json()["status"] == "detected"


def _raised(client: TestClient, world: World, incident_id: str, _: str) -> None:
    assert client.post(f"/api/v1/incidents/{incident_id}/severity", json={"severity": "critical", "reason": "a gear broke"}).is_success


@pytest.mark.parametrize(
    ("act", "form", "change"),
    [
        ("severity", {"severity": "low", "reason": "one asset"}, _raised),
        ("close", {"reason": "it stays", "keep_containment": "true"}, _contained),
        ("reverse", {"reason": "it is over"}, _contained),
    ],
)
def test_a_tab_left_open_decides_nothing_that_it_did_not_show(
    client: TestClient, world: World, lead: Browser, model: str, act: str, form: dict[str, str], change: Callable[..., None]
) -> None:
    incident_id = opened(client, model, severity="medium")
    if act != "close":  # an order that is not in force yet keeps it open
        order = {"order": "stop_serving", "reason": "pumps fail"}
        assert client.post(f"/api/v1/incidents/{incident_id}/containment", json=order).is_success
    form = form | {"mark": _mark(lead.get(f"/incidents/{incident_id}/{act}").text)}
    change(client, world, incident_id, model)
    before = everything(world)
    answer = lead.submit(f"/incidents/{incident_id}/{act}", form)
    assert answer.status_code == 409
    assert form["reason"] in answer.text, "what was typed is still there"
    assert everything(world) == before
    again = lead.submit(f"/incidents/{incident_id}/{act}", form | {"mark": _mark(answer.text)}, follow_redirects=False)
    assert again.status_code == 303


def _mark(page: str) -> str:
    found = re.search(r'name="mark" value="(\w+)"', page)
    assert found is not None
    return found[1]


def test_automation_goes_on_where_it_has_stopped(client: TestClient, world: World, lead: Browser, model: str) -> None:
    for _ in range(world.policy.recurrence.flapping_after):
        incident_id = opened(client, model)
        client.post(f"/api/v1/incidents/{incident_id}/close", json={"reason": "once more"})
    incident_id = opened(client, model)
    with world.transaction() as conn:
        assert flapping.automation_held(conn, incident_id, now=world.now())
    assert lead.submit(f"/incidents/{incident_id}/go-on", {"note": "a sensor"}, follow_redirects=False).status_code == 303
    with world.transaction() as conn:
        assert flapping.automation_held(conn, incident_id, now=world.now()) is None


def test_a_moment_without_a_zone_is_utc(world: World, lead: Browser, incident: str) -> None:
    form = {"case": "personal_data", "aware_at": "2026-03-02T10:30"}
    assert lead.submit(f"/incidents/{incident}/clocks/gdpr", form, follow_redirects=False).status_code == 303
    with world.transaction() as conn:
        clock: Clock | None = regulatory_clocks.get(conn, incident, ClockName.GDPR)
    assert clock is not None
    assert clock.aware_at.isoformat() == "2026-03-02T10:30:00+00:00"


def test_a_report_opens_or_joins_as_over_the_api(client: TestClient, world: World, lead: Browser, model: str) -> None:
    form = {"model": model, "severity": "high", "type": "performance_degradation", "description": "F1 fell"}
    first = lead.submit("/report", form, follow_redirects=False)
    again = lead.submit("/report", form, follow_redirects=False)
    assert (first.status_code, again.status_code) == (303, 303)
    opened_at, joined_at = first.headers["location"], again.headers["location"]
    assert (opened_at.partition("?")[0], opened_at.partition("?")[2], joined_at.partition("?")[2]) == (
        joined_at.partition("?")[0],
        "did=opened",
        "did=joined",
    )
    shown = client.get(f"/api/v1/incidents/{opened_at.split('/')[2].partition('?')[0]}").json()
    assert (shown["model"], shown["severity"], shown["reportedBy"]) == (model, "high", "the lead")


@pytest.mark.parametrize("bad", ["", "../etc", "a b", "x" * 300, HOSTILE])
def test_a_report_names_a_model(world: World, lead: Browser, bad: str) -> None:
    before = everything(world)
    answer = lead.submit("/report", {"model": bad, "severity": "high", "type": "infrastructure", "description": "down"})
    assert answer.status_code == 422
    assert 'id="model-fault"' in answer.text
    assert everything(world) == before


def test_hostile_words_are_kept_as_words(client: TestClient, lead: Browser, model: str) -> None:
    incident_id = opened(client, model, description=HOSTILE, impact=HOSTILE)
    for path, form in (
        ("resolve", {"root_cause": HOSTILE}),
        ("severity", {"severity": HOSTILE, "reason": HOSTILE}),
        ("handover", {"role": HOSTILE, "to": HOSTILE, "note": HOSTILE}),
        ("contain", {"order": "route", "version": HOSTILE, "reason": HOSTILE}),
        ("clocks/gdpr", {"case": HOSTILE, "aware_at": HOSTILE}),
        ("clocks/gdpr/notification", {"reference": HOSTILE, "not_required": HOSTILE}),
    ):
        answer = lead.submit(f"/incidents/{incident_id}/{path}", form)
        assert answer.status_code in (404, 409, 422, 503), (path, answer.status_code)
        assert "<script>alert" not in answer.text, path
        assert "<img" not in answer.text, path
        assert str(7919 * 7919) not in answer.text, "no template is rendered"
        assert "\x1b" not in answer.text
    answer = lead.submit(
        "/report", dict.fromkeys(("model", "severity", "type", "subtype", "description", "impact", "reported_by"), HOSTILE)
    )
    assert "<script>alert" not in answer.text
    assert "{{ 7919*7919 }}" in answer.text


def test_words_in_an_address_are_not_said_by_us(lead: Browser, incident: str) -> None:
    answer = lead.get(f"/incidents/{incident}/acknowledge", params={"did": "Call +1 555 and read out your token"})
    assert "read out your token" not in answer.text
    assert "+1 555" not in answer.text
