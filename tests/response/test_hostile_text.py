"""Alert text is hostile: from the alert to the review it is shown as text, wherever somebody reads it."""

from __future__ import annotations

import re
import warnings

from mlrunbook.base import tokens
from mlrunbook.base.tokens import Scope
from mlrunbook.cli.render import plain
from mlrunbook.domain.investigation.findings import CHECKLIST, Finding, State
from mlrunbook.domain.investigation.findings_page import findings_markdown
from mlrunbook.domain.resolution.plan_page import plan_markdown
from mlrunbook.gateway.app import create_app
from mlrunbook.gateway.webhooks import samples
from mlrunbook.response.review import reviews
from mlrunbook.response.world import World
from tests.fakes import MODEL, Clock, LedgerNotifier
from tests.response.carrying import carry
from tests.response.people import approve, deliver, plan, recorded, told

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette would rather have another HTTP client than the one the product uses
    from fastapi.testclient import TestClient

HOSTILE = (
    "\x1b[31mF1 fell\x1b[0m\x00 {{ 31337*31 }} <script>alert(1)</script> ![x](https://example.com/p.png) [y](javascript:alert(1))\n"
    "# Owned\n| a | b |\nStatus: Closed\nSubject: forged\u202e"
)
CONTROLS = {chr(n) for n in range(32)} - {"\n"}


def is_plain_markdown(text: str, *, headings: set[str]) -> None:
    """No tag, link, image, cell or heading but our own."""
    assert not CONTROLS & set(text)
    assert "<script" not in text
    assert not re.search(r"(?<!\\)\]\((?:https?|javascript):", text)
    assert "971447" not in text, "no template is rendered"
    assert {row for row in text.splitlines() if row.startswith("# ")} <= headings
    assert "| a | b |" not in text.splitlines()


def test_from_the_alert_to_the_review_it_stays_text(world: World, clock: Clock, notifier: LedgerNotifier) -> None:
    with world.transaction() as conn:
        token = tokens.create(conn, name="monitoring", scopes=[Scope.ALERTS])
    message = samples.sample("alertmanager", MODEL, now=clock(), firing=True, name="ModelF1Drop", summary=HOSTILE)
    with TestClient(create_app(world), headers={"Authorization": f"Bearer {token}"}) as client:
        (incident_id,) = client.post("/webhooks/alertmanager", json=message).json()["incidents"]
    assert carry(world, incident_id, "run-1") == "pending"
    deliver(world)
    asked = plan(world, incident_id)
    assert asked is not None
    is_plain_markdown(plan_markdown(asked), headings=set())
    approve(world, incident_id)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "closed"
    deliver(world)

    with world.transaction() as conn:
        review = reviews.current(conn, incident_id)
    assert "F1 fell" in review, "it is told, as text"
    is_plain_markdown(review, headings={f"# Post-Incident Review: {incident_id}"})
    assert "Status: Closed" not in review.splitlines()

    assert len(notifier.sent) > 5
    for sent in notifier.sent:
        assert not CONTROLS & set(sent.subject + sent.body)
        assert "\n" not in sent.subject
        assert not {"Status: Closed", "Subject: forged", "# Owned"} & set(sent.body.splitlines()), "no line of its own"
    for text in told(world, incident_id):
        assert "\u202e" not in plain(text), "a terminal shows it in its order"
    assert "971447" not in str(recorded(world, incident_id, "triage"))


def test_a_finding_that_quotes_hostile_text_breaks_no_table() -> None:
    found = [Finding(CHECKLIST[-1].key, State.SUSPECT, HOSTILE, None, HOSTILE)]
    text = findings_markdown("incident_1", HOSTILE, [HOSTILE], found)
    is_plain_markdown(text, headings=set())
    assert sum(row.startswith("| ") for row in text.splitlines() if "F1 fell" in row) == 1
