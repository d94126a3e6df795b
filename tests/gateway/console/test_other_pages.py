"""Models, audits, action items, silenced alerts, quarantine, doctor and policy: each from the store, as text, and to whom it concerns."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

import pytest
from fastapi.testclient import TestClient

from mlrunbook.base import tokens
from mlrunbook.base.db import transaction
from mlrunbook.base.tokens import Scope
from mlrunbook.diagnostics.doctor import fail, ok
from mlrunbook.domain.audits.section import Verdict
from mlrunbook.domain.incident import ItemStatus
from mlrunbook.domain.observed import ServingStatus
from mlrunbook.domain.policy.alerting import Silence
from mlrunbook.domain.policy.owned import ModelRules
from mlrunbook.domain.roles import Role
from mlrunbook.gateway.app import create_app
from mlrunbook.gateway.console import audit_pages, insight, item_pages, model_pages
from mlrunbook.gateway.webhooks import samples
from mlrunbook.response.world import World
from mlrunbook.store import action_items, incidents, quarantine
from tests.gateway.conftest import Away, Clock, Keys
from tests.gateway.console.conftest import Browser, SignIn
from tests.gateway.console.kit import HOSTILE, ended, filed, opened, quarantined, todo
from tests.gateway.console.reading import Read, checked, read


@pytest.fixture
def ann(sign_in: SignIn, keys: Keys) -> Browser:
    return sign_in(keys.token("Ann Lee", role="ml_team_lead"))


def limited(keys: Keys, *models: str, scopes: tuple[Scope, ...] = tuple(Scope)) -> str:
    with transaction(keys.engine) as conn:
        return tokens.create(conn, name="Bo Day", scopes=scopes, role="ml_team_lead", limits=tokens.Limits(models=models))


def on(browser: Any, world: World, keys: Keys) -> Browser:
    """Ann Lee at another gateway."""
    one: Browser = browser(create_app(world))
    assert one.post("/login/token", data={"token": keys.token("Ann Lee", role="ml_team_lead")}, follow_redirects=False).status_code == 303
    return one


def silence_of(models: str, now: datetime, reason: str) -> Silence:
    return Silence(start=now, end=now + timedelta(hours=1), reason=reason, created_by=Role.ML_TEAM_LEAD, models=(models,))


def is_text(answer: Any, page: Read) -> None:
    """What came from outside is read, and nothing else came of it."""
    assert "<script>alert(1)" in page.text
    assert "971447" not in page.text
    assert not {"\x1b", "\x07", "\u202e"} & set(answer.text)


def test_every_page_of_an_empty_gateway_says_what_would_be_there(ann: Browser) -> None:
    for path in ("/models", "/audits", "/actions", "/actions?show=overdue", "/actions?show=all", "/silenced", "/quarantine", "/policy"):
        page = read(ann.get(path))
        assert len(page.words) > 100, path


# --- models


class Serving(Away):
    """A platform where one model serves, and another is registered and does not answer."""

    def models(self) -> list[str]:
        return ["served_well", "registered_alone"]

    def status(self, model: str) -> ServingStatus:
        if model != "served_well":
            raise AssertionError("an error that nobody expected")
        return ServingStatus(model, "v7.1.0", "v7.0.0", None, True, "v7.1.0")


def test_models_are_listed_from_the_store_and_policy_at_once(browser: Any, world: World, clock: Clock, keys: Keys, model: str) -> None:
    policy = world.policy.model_copy(update={"models": {"named_alone": ModelRules(owner="Plant team"), "pattern_*": ModelRules()}})
    one, audit = opened(world, model), filed(world, model)
    page = read(on(browser, replace(world, policy=policy), keys).get("/models"))
    assert {f"/models/{model}", "/models/named_alone", f"/audits/{audit.id}"} <= set(page.links)
    assert "/models/pattern_*" not in page.links
    assert "Plant team" in page.words
    assert one


def test_what_serves_is_asked_of_the_platform_when_somebody_waits_for_it(browser: Any, world: World, clock: Clock, keys: Keys) -> None:
    ann = on(browser, replace(world, platform=cast(Any, Serving())), keys)
    page = read(ann.get("/models?live=true"))
    assert {"/models/served_well", "/models/registered_alone"} <= set(page.links)
    assert "v7.1.0" in page.words
    assert "failed unexpectedly" in page.words
    assert "v7.1.0" in read(ann.get("/models/served_well?live=true")).words


def test_a_platform_that_is_away_costs_the_page_only_what_it_would_have_said(ann: Browser, world: World, model: str) -> None:
    one = opened(world, model)
    for path in ("/models", "/models?live=true", f"/models/{model}", f"/models/{model}?live=true"):
        read(ann.get(path))
    assert f"/incidents/{one}" in read(ann.get(f"/models/{model}?live=true")).links


def test_a_model_shows_who_owns_it_what_is_quiet_and_what_happened(
    browser: Any, world: World, clock: Clock, keys: Keys, model: str
) -> None:
    now = world.now()
    silence = silence_of(model, now, HOSTILE)
    policy = world.policy.model_copy(update={"models": {model: ModelRules(owner=HOSTILE)}, "silences": (silence,)})
    past = opened(world, model, description=HOSTILE)
    ended(world, past)
    one, audit = opened(world, model, description=HOSTILE), filed(world, model)
    answer = on(browser, replace(world, policy=policy), keys).get(f"/models/{model}")
    page = read(answer)
    assert {f"/incidents/{one}", f"/incidents/{past}", f"/audits/{audit.id}"} <= set(page.links)
    assert "ML Team Lead" in page.words
    is_text(answer, page)


def test_a_model_that_nobody_knows_is_not_found_and_a_name_that_is_none_is_refused(ann: Browser) -> None:
    assert ann.get("/models/nobody_knows_this").status_code == 404
    assert ann.get("/models/..%2F..%2Fetc").status_code in (404, 422)
    assert ann.get("/models/%3Cscript%3E").status_code == 422


def test_a_limited_token_sees_its_models_alone(sign_in: SignIn, keys: Keys, world: World, model: str) -> None:
    opened(world, model)
    opened(world, f"{model}_other")
    mine, theirs = filed(world, model), filed(world, f"{model}_other")
    bo = sign_in(limited(keys, model))
    assert [link for link in read(bo.get("/models")).links if model in link] == [f"/models/{model}"]
    assert bo.get(f"/models/{model}").status_code == 200
    assert bo.get(f"/models/{model}_other").status_code == 403
    assert f"/audits/{mine.id}" in read(bo.get("/audits")).links
    assert f"/audits/{theirs.id}" not in read(bo.get("/audits")).links
    assert bo.get(f"/audits/{theirs.id}").status_code == bo.get(f"/audits/{theirs.id}/report").status_code == 403
    for everything in ("/quarantine", "/quarantine/1", "/doctor", "/policy"):
        assert bo.get(everything).status_code == 403, everything


def test_no_more_models_are_asked_about_than_anybody_waits_for(world: World) -> None:
    asked = model_pages.ask(replace(world, platform=cast(Any, Serving())), [f"m{i}" for i in range(300)])
    assert len(asked) == model_pages.MOST_ASKED


# --- audits


def test_audits_are_filtered_paged_and_shown_with_their_report(
    ann: Browser, world: World, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_pages, "ON_A_PAGE", 2)
    made = [filed(world, model, HOSTILE, week=week, verdict=Verdict.FAIL if week == 3 else Verdict.PASS) for week in range(1, 4)]
    seen, where = [], f"/audits?model={model}"
    while where:
        page = read(ann.get(where))
        seen += [one.id for one in reversed(made) if f"/audits/{one.id}" in page.links]
        where = next((link for link in page.links if "before=" in link), "")
    assert seen == [one.id for one in reversed(made)]
    failed = read(ann.get(f"/audits?model={model}&verdict=fail"))
    assert [link for link in failed.links if link in {f"/audits/{one.id}" for one in made}] == [f"/audits/{made[2].id}"]
    answer = ann.get(f"/audits/{made[0].id}")
    is_text(answer, read(answer))
    report = ann.get(f"/audits/{made[0].id}/report")
    assert "<title>the report</title>" in report.text
    assert "sandbox" in report.headers["Content-Security-Policy"]
    assert ann.get("/audits/999999").status_code == 404
    checked(ann.get("/audits?verdict=maybe"))


# --- action items


def test_action_items_are_listed_and_moved_by_people_who_may(ann: Browser, world: World, clock: Clock, model: str) -> None:
    one = opened(world, model)
    number = todo(world, one, HOSTILE)
    answer = ann.get("/actions")
    page = read(answer)
    is_text(answer, page)
    assert f"/actions/{number}/done" in page.links
    for move, note, status in (("start", "", ItemStatus.IN_PROGRESS), ("drop", "no longer served", ItemStatus.DROPPED)):
        before = standing(world, number)
        read(ann.get(f"/actions/{number}/{move}"))
        assert standing(world, number) == before, "a look changes nothing"
        assert ann.submit(f"/actions/{number}/{move}", {"note": note}, follow_redirects=False).status_code == 303
        assert standing(world, number) == (status, note, "Ann Lee" if note else None)
    assert f"/actions/{number}/start" not in read(ann.get("/actions")).links
    assert f"/actions/{number}/start" in read(ann.get("/actions?show=all")).links


def standing(world: World, number: int) -> tuple[ItemStatus, str, str | None]:
    with world.transaction() as conn:
        item = action_items.get(conn, number)
    return item.status, item.note, item.ended_by


def test_dropping_without_a_reason_changes_nothing_and_asks_for_it(ann: Browser, world: World, model: str) -> None:
    number = todo(world, opened(world, model))
    answer = ann.submit(f"/actions/{number}/drop", {"note": " \x07 "})
    assert answer.status_code == 422
    assert "note" in checked(answer).fields
    assert standing(world, number)[0] is ItemStatus.NOT_STARTED


def test_only_those_who_operate_move_items_and_only_of_their_models(sign_in: SignIn, keys: Keys, world: World, model: str) -> None:
    number, other = todo(world, opened(world, model)), todo(world, opened(world, f"{model}_other"))
    reader = sign_in(keys.token("Cy Poe", Scope.READ))
    assert f"/actions/{number}/done" not in read(reader.get("/actions")).links
    assert reader.submit(f"/actions/{number}/done").status_code == 403
    bo = sign_in(limited(keys, model))
    links = read(bo.get("/actions")).links
    assert f"/actions/{number}/done" in links
    assert f"/actions/{other}/done" not in links
    assert bo.submit(f"/actions/{other}/done").status_code == 403
    assert standing(world, number)[0] is standing(world, other)[0] is ItemStatus.NOT_STARTED


def test_action_items_are_paged(ann: Browser, world: World, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_pages, "ON_A_PAGE", 2)
    one = opened(world, model)
    made = {todo(world, one, f"Do {i}", days=300 + i) for i in range(5)}
    seen, where = set(), "/actions"
    while where:
        page = read(ann.get(where))
        seen |= {number for number in made if f"item-{number}" in page.ids}
        where = next((link for link in page.links if "after=" in link), "")
    assert seen == made


# --- silenced alerts


def test_silenced_alerts_say_why_nobody_was_told(browser: Any, world: World, clock: Clock, keys: Keys, model: str) -> None:
    now = world.now()
    silence = Silence(
        start=now, end=now + timedelta(hours=1), reason="the pump is rebuilt", created_by=Role.ML_TEAM_LEAD, models=(f"{model}*",)
    )
    quiet = replace(world, policy=world.policy.model_copy(update={"silences": (silence,)}))
    with TestClient(create_app(quiet), headers=keys.of("the lead")) as client:
        for name in (model, f"{model}_other"):
            told = samples.sample("alertmanager", name, now=now, firing=True, name=HOSTILE)
            assert client.post("/webhooks/alertmanager", json=told).json()["incidents"] == []
    answer = on(browser, quiet, keys).get("/silenced")
    page = read(answer)
    is_text(answer, page)
    assert "the pump is rebuilt" in page.words
    bo = browser(create_app(quiet))
    bo.post("/login/token", data={"token": limited(keys, model)})
    links = read(bo.get("/silenced")).links
    assert f"/models/{model}" in links
    assert f"/models/{model}_other" not in links


# --- quarantine


def test_a_quarantined_message_is_shown_with_why_and_how_it_would_be_read_and_no_secret(
    ann: Browser, client: TestClient, world: World
) -> None:
    number = quarantined(client, world)
    assert f"/quarantine/{number}" in read(ann.get("/quarantine")).links
    for path in (
        f"/quarantine/{number}",
        f"/quarantine/{number}?read=true",
        f"/quarantine/{number}/replay",
        f"/quarantine/{number}/discard",
    ):
        answer = ann.get(path)
        page = read(answer)
        assert "hunter2secret" not in answer.text, path
        assert "971447" not in answer.text
        assert "model" in page.words
    is_text(answer := ann.get(f"/quarantine/{number}"), read(answer))
    assert "waits in the quarantine" in read(ann.get(f"/quarantine/{number}?read=true")).words


def test_a_message_is_discarded_for_a_reason_once(ann: Browser, client: TestClient, world: World) -> None:
    number = quarantined(client, world)
    assert ann.submit(f"/quarantine/{number}/discard", {"reason": " \x1b "}).status_code == 422
    assert kept(world, number).replayed_at is None
    assert ann.submit(f"/quarantine/{number}/discard", {"reason": HOSTILE}, follow_redirects=False).status_code == 303
    gone = kept(world, number).discarded
    assert gone is not None
    assert gone.by == "Ann Lee (ML Team Lead)"
    is_text(answer := ann.get(f"/quarantine/{number}"), read(answer))
    assert ann.submit(f"/quarantine/{number}/discard", {"reason": "again"}).status_code == 409
    assert f"/quarantine/{number}" not in read(ann.get("/quarantine")).links
    assert f"/quarantine/{number}" in read(ann.get("/quarantine?all=true")).links


def kept(world: World, number: int) -> quarantine.Quarantined:
    with world.transaction() as conn:
        return quarantine.get(conn, number)


def test_a_message_is_replayed_by_the_policy_file_as_it_is_now(
    browser: Any, client: TestClient, world: World, clock: Clock, keys: Keys, model: str
) -> None:
    number = quarantined(client, world)
    ann = browser(create_app(world, policy_now=lambda: with_model(world, model)))
    ann.post("/login/token", data={"token": keys.token("Ann Lee", role="ml_team_lead")})
    assert "opens an incident" in read(ann.get(f"/quarantine/{number}/replay")).words
    with world.transaction() as conn:
        assert incidents.find(conn, model=model) == [], "a look takes nothing in"
    answer = ann.submit(f"/quarantine/{number}/replay", follow_redirects=False)
    with world.transaction() as conn:
        (one,) = incidents.find(conn, model=model)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/incidents/{one.id}")
    assert ann.submit(f"/quarantine/{number}/replay").status_code == 409


def with_model(world: World, model: str) -> Any:
    intake = replace(world.policy.intake, models={"*:*": model})
    return world.policy.model_copy(update={"intake": intake, "models": {model: ModelRules()}})


def test_only_those_who_operate_replay_or_discard(sign_in: SignIn, keys: Keys, client: TestClient, world: World) -> None:
    number = quarantined(client, world)
    reader = sign_in(keys.token("Cy Poe", Scope.READ))
    page = read(reader.get(f"/quarantine/{number}"))
    assert not {f"/quarantine/{number}/replay", f"/quarantine/{number}/discard"} & set(page.links)
    for act in ("replay", "discard"):
        assert reader.submit(f"/quarantine/{number}/{act}", {"reason": "x"}).status_code == 403
    assert kept(world, number).replayed_at is None


# --- doctor and policy


def test_the_doctor_runs_once_for_all_who_look_and_only_when_somebody_waits_for_it(ann: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def examine(model: str) -> list[Any]:
        asked.append(model)
        return [ok("database", "PostgreSQL 18 answers"), fail("platform", HOSTILE, "start it")]

    doctor = insight.Doctor(examine)
    assert [one.name for one in doctor.findings("m")] == ["database", "platform"]
    doctor.findings("m")
    assert asked == ["m"]
    read(ann.get("/doctor"))


def test_the_policy_page_shows_what_is_in_force_and_says_when_the_file_has_changed(
    ann: Browser, browser: Any, world: World, clock: Clock, keys: Keys
) -> None:
    page = read(ann.get("/policy"))
    assert "response_min:" in page.text
    assert "The file has changed since" not in page.words
    mine = replace(world, policy=world.policy.model_copy(update={"models": {"churn": ModelRules(owner=HOSTILE)}}))
    bo = browser(create_app(mine, policy_now=lambda: world.policy))
    bo.post("/login/token", data={"token": keys.token("Ann Lee", role="ml_team_lead")})
    answer = bo.get("/policy")
    page = read(answer)
    is_text(answer, page)
    assert "The file has changed since" in page.words
    assert "/models/churn" in page.links
