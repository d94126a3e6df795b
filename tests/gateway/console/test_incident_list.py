"""The list of incidents: what is found, page by page, and by whom."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import quote

import pytest

from mlrunbook.base import tokens
from mlrunbook.base.db import transaction
from mlrunbook.base.tokens import Scope
from mlrunbook.domain.cause import Cause
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.investigation.diagnosis import Diagnosed
from mlrunbook.gateway.console import incident_list
from mlrunbook.response.world import World
from mlrunbook.store import records
from tests.gateway.conftest import Clock, Keys
from tests.gateway.console.conftest import Browser, SignIn
from tests.gateway.console.kit import HOSTILE, ended, opened
from tests.gateway.console.reading import checked, read


@pytest.fixture
def ann(sign_in: SignIn, keys: Keys) -> Browser:
    return sign_in(keys.token("Ann Lee", role="ml_team_lead"))


def listed(browser: Browser, query: str) -> list[str]:
    """The incidents in the list, in its order."""
    page = read(browser.get(f"/incidents?{query}"))
    section = browser.get(f"/incidents?{query}").text.partition('id="list"')[2]
    found = [link.removeprefix("/incidents/") for link in page.links if link.startswith("/incidents/incident_")]
    return [one for one in dict.fromkeys(found) if f'href="/incidents/{one}"' in section]


def test_the_front_page_is_the_list(ann: Browser) -> None:
    answer = ann.get("/", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/incidents")


def test_open_incidents_are_listed_newest_first_and_closed_ones_when_asked(ann: Browser, world: World, model: str) -> None:
    first, second = opened(world, model), opened(world, f"{model}_b")
    ended(world, first)
    assert first not in listed(ann, "")
    assert listed(ann, f"status=all&model={model}") == [first]
    assert listed(ann, f"status=closed&model={model}") == [first]
    assert listed(ann, f"q={model}&status=all") == [second, first]


def test_every_filter_narrows_the_list(sign_in: SignIn, keys: Keys, world: World, clock: Clock, model: str) -> None:
    old = opened(world, model, severity=Severity.LOW)
    ended(world, old)
    clock.pass_(days=3)
    new = opened(world, model, severity=Severity.CRITICAL)
    ann = sign_in(keys.token("Ann Lee", Scope.READ))
    all_of = f"status=all&model={model}"
    assert listed(ann, f"{all_of}&severity=low") == [old]
    assert listed(ann, f"{all_of}&type=performance_degradation") == [new, old]
    assert listed(ann, f"{all_of}&type=security") == []
    assert listed(ann, f"{all_of}&since={clock.at - timedelta(days=1):%Y-%m-%d}") == [new]


def test_words_find_what_was_said_what_it_was_about_and_why(ann: Browser, world: World, clock: Clock, model: str) -> None:
    one = opened(world, model, description="Recall of Pump_77 fell after the zanzibar release")
    with world.transaction() as conn:
        found = Diagnosed(Cause.STALE_FEATURES, headline="The feature vibration_mean is stale since Quetzalcoatl")
        records.keep(conn, one, found, now=clock())
    other = opened(world, f"{model}_other", description="Nothing of the kind")
    for words in ("zanzibar", "ZANZ", "pump 77 release", "quetzal", "stale_features vibration", one, one.removeprefix("incident_"), model):
        assert one in listed(ann, f"q={quote(words)}"), words
    assert other not in listed(ann, "q=zanzibar")
    assert listed(ann, "q=zanzibar+nothing") == []


@pytest.mark.parametrize("words", ["'", "a' | 'b", "!!!", "\\", "(((", "& | ! <->", ":*", HOSTILE, "é" * 150, "\x00", "9" * 40])
def test_whatever_is_searched_for_is_only_words(ann: Browser, words: str) -> None:
    page = read(ann.get("/incidents", params={"q": words, "status": "all"}))
    assert "971447" not in page.text


def test_paging_shows_every_incident_once(ann: Browser, world: World, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(incident_list, "ON_A_PAGE", 2)
    made = [opened(world, f"{model}_{i}", description=f"whimbrel{model}") for i in range(5)]
    seen: list[str] = []
    where = f"/incidents?q=whimbrel{model}"
    while where:
        page = read(ann.get(where))
        seen += [link.removeprefix("/incidents/") for link in page.links if link.removeprefix("/incidents/") in made]
        where = next((link for link in page.links if "before=" in link), "")
    assert seen == list(reversed(made))


def test_a_value_that_the_form_does_not_offer_is_explained(ann: Browser) -> None:
    for query in ("status=hot", "severity=9", "type=<script>", "since=yesterday", "before=0"):
        answer = ann.get(f"/incidents?{query}")
        assert answer.status_code == 422
        assert "<script>a" not in answer.text
        checked(answer)


def test_an_empty_list_says_what_to_do(ann: Browser) -> None:
    page = read(ann.get("/incidents?q=nobodywroteofthis"))
    assert "/incidents" in page.links
    assert "No incident fits" in page.words


def test_a_token_that_is_limited_to_models_sees_those_alone(sign_in: SignIn, keys: Keys, world: World, model: str) -> None:
    mine, theirs = opened(world, f"mine_{model}"), opened(world, f"minex{model}")
    with transaction(keys.engine) as conn:
        limits = tokens.Limits(models=(f"mine_{model}*",))
        token = tokens.create(conn, name=f"Bo {model}", scopes=[Scope.READ], role="ml_team_lead", limits=limits)
    bo = sign_in(token)
    for query in ("", "status=all", f"q={theirs}", f"model=minex{model}"):
        answer = bo.get(f"/incidents?{query}")
        assert f"/incidents/{theirs}" not in answer.text, query
        assert f'<option value="minex{model}"' not in answer.text, query
    assert listed(bo, "status=all") == [mine]
    assert bo.get("/waiting").status_code == 200


def test_hostile_text_stays_text(ann: Browser, world: World, model: str) -> None:
    one = opened(world, model, description=HOSTILE)
    answer = ann.get(f"/incidents?model={model}")
    page = read(answer)
    assert f"/incidents/{one}" in page.links
    assert "<script>alert(1)" in page.text
    assert "971447" not in page.text
    assert not {"\x1b", "\x07", "\u202e"} & set(answer.text)


def test_the_page_needs_nothing_but_the_store(ann: Browser, world: World, model: str) -> None:
    """Platform, runtime, notifier and Prefect of this world raise when they are touched."""
    opened(world, model)
    read(ann.get("/incidents"))
