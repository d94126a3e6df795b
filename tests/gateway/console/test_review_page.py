"""The review in the console: read, edited by two people at once, signed by those who may, and its action items."""

from __future__ import annotations

import html
import re

import pytest
from fastapi.testclient import TestClient

from mlrunbook.domain.incident import Status
from mlrunbook.gateway.console import markdown
from mlrunbook.response.review import reviews
from mlrunbook.response.world import World
from mlrunbook.store import action_items, incidents
from tests.gateway.api.test_incidents import opened
from tests.gateway.conftest import Clock, Keys
from tests.gateway.console.conftest import Browser, SignIn
from tests.gateway.console.world_of import everything

HOSTILE = """# A review

<script>alert(1)</script> ![a picture](https://evil.example/p.png) [press](javascript:alert(2)) <https://evil.example>

| a | b |
|:-:|---|
| <img src=x onerror=alert(3)> | {{ 7*7 }} |
"""


@pytest.fixture
def lead(sign_in: SignIn, keys: Keys, clock: Clock) -> Browser:
    return sign_in(keys.token("the lead", role="ml_team_lead"))


@pytest.fixture
def manager(sign_in: SignIn, keys: Keys, clock: Clock) -> Browser:
    return sign_in(keys.token("the manager", role="engineering_manager"))


@pytest.fixture
def reviewed(client: TestClient, world: World, model: str) -> str:
    """A closed incident with its drafted review."""
    incident_id = opened(client, model)
    with world.transaction() as conn:
        incidents.set_status(conn, incident_id, Status.RESOLVED, why="F1 is back", actor="test", now=world.now())
    assert client.post(f"/api/v1/incidents/{incident_id}/close").status_code == 200
    return incident_id


def text_of(world: World, incident_id: str) -> str:
    with world.transaction() as conn:
        return reviews.current(conn, incident_id)


def editor(browser: Browser, incident_id: str) -> dict[str, str]:
    """The fields of the editor as a browser would send them."""
    page = browser.get(f"/incidents/{incident_id}/review/edit").text
    [of] = re.findall(r'name="of" value="([0-9a-f]*)"', page)
    [written] = re.findall(r"<textarea[^>]*>\n(.*?)</textarea>", page, re.S)
    return {"of": of, "markdown": html.unescape(written)}


def save(browser: Browser, incident_id: str, fields: dict[str, str]) -> int:
    return int(browser.submit(f"/incidents/{incident_id}/review/edit", fields, follow_redirects=False).status_code)


def sign(browser: Browser, world: World, incident_id: str, part: str, of: str | None = None) -> int:
    with world.transaction() as conn:
        fields = {"of": reviews.version(conn, incident_id) if of is None else of}
    return int(browser.submit(f"/incidents/{incident_id}/review/sign/{part}", fields, follow_redirects=False).status_code)


def test_the_editor_holds_the_whole_text_and_saving_it_as_it_is_changes_nothing(world: World, lead: Browser, reviewed: str) -> None:
    fields = editor(lead, reviewed)
    assert fields["markdown"].strip() == text_of(world, reviewed).strip()
    before = everything(world)
    sent = {**fields, "markdown": fields["markdown"].replace("\n", "\r\n")}  # as browsers send lines
    assert save(lead, reviewed, sent) == 303
    assert everything(world) == before


def test_what_is_saved_is_read(world: World, lead: Browser, reviewed: str) -> None:
    fields = editor(lead, reviewed)
    fields["markdown"] = fields["markdown"].replace("To be answered in the review meeting", "Nobody compared the label maps", 1)
    assert save(lead, reviewed, fields) == 303
    assert "Nobody compared the label maps" in text_of(world, reviewed)
    assert "Nobody compared the label maps" in lead.get(f"/incidents/{reviewed}/review").text


def test_nobody_overwrites_what_another_has_saved_meanwhile(world: World, lead: Browser, manager: Browser, reviewed: str) -> None:
    mine, theirs = editor(lead, reviewed), editor(manager, reviewed)
    theirs["markdown"] += "\n## More\n\nThe manager's words.\n"
    mine["markdown"] += "\n## More\n\nThe lead's words.\n"
    assert save(manager, reviewed, theirs) == 303
    answer = lead.submit(f"/incidents/{reviewed}/review/edit", mine)
    assert answer.status_code == 409
    shown = html.unescape(answer.text)
    assert "The manager's words." in shown
    assert "The lead's words." in shown, "what was typed is not lost"
    assert "The lead's words." not in text_of(world, reviewed)
    [of] = re.findall(r'name="of" value="([0-9a-f]*)"', answer.text)
    both = {"of": of, "markdown": theirs["markdown"] + "\nThe lead's words.\n"}
    assert save(lead, reviewed, both) == 303
    assert "The manager's words." in text_of(world, reviewed)
    assert "The lead's words." in text_of(world, reviewed)


@pytest.mark.parametrize("words", ["Below the signatures.", "| Buy a sensor | Ann | 2030-01-01 | Not Started |"])
def test_words_in_a_section_that_is_written_anew_are_not_lost_without_a_word(
    world: World, lead: Browser, reviewed: str, words: str
) -> None:
    before, fields = everything(world), editor(lead, reviewed)
    fields["markdown"] += f"\n{words}\n"
    answer = lead.submit(f"/incidents/{reviewed}/review/edit", fields)
    assert answer.status_code == 422
    assert html.unescape(answer.text).count(words) >= 2, "in the sentence, and still in the editor"
    assert everything(world) == before


def test_a_preview_saves_nothing_and_keeps_the_text(world: World, lead: Browser, reviewed: str) -> None:
    before, fields = everything(world), editor(lead, reviewed) | {"markdown": "# Mine\n\nSome *words*."}
    answer = lead.submit(f"/incidents/{reviewed}/review/preview", fields)
    assert "<em>words</em>" in answer.text
    assert "Some *words*." in answer.text
    assert everything(world) == before


def test_a_review_without_its_heading_is_not_saved(world: World, lead: Browser, reviewed: str) -> None:
    before, fields = everything(world), editor(lead, reviewed) | {"markdown": "lost the heading"}
    answer = lead.submit(f"/incidents/{reviewed}/review/edit", fields)
    assert answer.status_code == 422
    assert "lost the heading</textarea>" in answer.text
    assert everything(world) == before


def test_the_lead_reviews_and_somebody_else_approves(world: World, lead: Browser, manager: Browser, reviewed: str) -> None:
    assert "Somebody reviews it first" in manager.get(f"/incidents/{reviewed}/review").text
    assert sign(manager, world, reviewed, "approved") == 409
    assert sign(lead, world, reviewed, "reviewed") == 303
    assert sign(lead, world, reviewed, "approved") == 409
    assert sign(manager, world, reviewed, "approved") == 303
    text = text_of(world, reviewed)
    assert "- **Reviewed By:** the lead (ML Team Lead), " in text
    assert "- **Approved By:** the manager (Engineering Manager), " in text
    assert "Saving voids the signatures" in lead.get(f"/incidents/{reviewed}/review/edit").text


def test_a_signature_is_for_the_text_that_was_read(world: World, lead: Browser, manager: Browser, reviewed: str) -> None:
    read = editor(lead, reviewed)["of"]
    assert save(manager, reviewed, editor(manager, reviewed) | {"markdown": "# Another\n\nText."}) == 303
    before = everything(world)
    assert sign(lead, world, reviewed, "reviewed", of=read) == 409
    assert everything(world) == before


def test_markdown_of_others_is_text_without_pictures_and_scripts(lead: Browser, reviewed: str) -> None:
    assert save(lead, reviewed, editor(lead, reviewed) | {"markdown": HOSTILE}) == 303
    shown = lead.get(f"/incidents/{reviewed}/review").text
    article = shown.split('<article class="panel written">')[1].split("</article>")[0]
    assert not re.findall(
        r"<(script|img|iframe|style)|javascript:[^)]*\"|style=|onerror=[^&]*\"", article.replace("onerror=alert(3)&gt;", "")
    )
    assert '<a href="https://evil.example" rel="nofollow noopener noreferrer">' in article
    assert "{{ 7*7 }}" in article


@pytest.mark.parametrize("deep", ["> " * 2000 + "x", "- " * 2000 + "x", "[" * 5000, "*" * 5000, "|" * 5000 + "\n" + "|-" * 3000])
def test_markdown_of_any_depth_is_read(deep: str) -> None:
    assert str(markdown.html(deep))


def test_an_action_item_is_added_done_and_dropped_for_a_reason(world: World, lead: Browser, reviewed: str) -> None:
    there = f"/incidents/{reviewed}/review/items"
    form = {"action": "Alert on stale rows", "owner": "ml_team_lead", "due_on": "2030-01-31"}
    assert lead.submit(f"{there}/new", form, follow_redirects=False).status_code == 303
    with world.transaction() as conn:
        [item] = [one for one in action_items.of_incident(conn, reviewed) if one.action == "Alert on stale rows"]
    assert (item.owner_role, f"{item.due_at:%Y-%m-%d}") == ("ml_team_lead", "2030-01-31")
    assert lead.submit(f"{there}/{item.id}", {"status": "dropped"}).status_code == 422
    assert lead.submit(f"{there}/{item.id}", {"status": "done", "note": "an alert"}, follow_redirects=False).status_code == 303
    with world.transaction() as conn:
        moved = action_items.get(conn, item.id)
    assert (moved.status, moved.ended_by, moved.note) == ("done", "the lead", "an alert")


def test_an_item_of_another_incident_is_not_moved_from_here(
    client: TestClient, world: World, lead: Browser, reviewed: str, model: str
) -> None:
    with world.transaction() as conn:
        item = action_items.of_incident(conn, reviewed)[0]
    other = opened(client, f"{model}_other")
    before = everything(world)
    assert lead.submit(f"/incidents/{other}/review/items/{item.id}", {"status": "done"}).status_code == 404
    assert everything(world) == before


def test_an_open_incident_has_no_review_and_the_page_says_when_it_gets_one(lead: Browser, incident: str) -> None:
    page = lead.get(f"/incidents/{incident}/review")
    assert page.status_code == 200
    assert "not drafted" in page.text
    assert lead.get(f"/incidents/{incident}/review/edit").status_code == 404
