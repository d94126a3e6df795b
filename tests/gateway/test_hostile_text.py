"""Alert text is hostile: whatever door it comes by, nothing it says is obeyed where a page, a notice or a terminal shows it."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from mlrunbook.cli.render import plain
from mlrunbook.domain.roles import Role
from mlrunbook.gateway.webhooks import samples
from mlrunbook.gateway.webhooks.registry import FORMATS
from mlrunbook.response.communication.notifications import page_text
from mlrunbook.response.world import World
from mlrunbook.store import incidents, recent_changes, timeline
from tests.gateway.conftest import Clock

HOSTILE = "\x1b[31mred\x1b[0m\x00\x07 {{ 31337*31 }} <script>x</script> # head\n@here"
CONTROLS = {"\x00", "\x07", "\x1b"}


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_hostile_text_is_kept_without_controls_and_shown_as_text(
    client: TestClient, world: World, clock: Clock, model: str, form: str
) -> None:
    message = samples.sample(form, model, now=clock(), firing=True, summary=HOSTILE)
    answer = client.post(f"/webhooks/{form}", json=message, headers={"Content-Type": samples.content_type(form)})
    assert answer.status_code == 202, answer.text
    with world.transaction() as conn:
        if form == "mlflow":
            shown = [c.ref for c in recent_changes.of_model(conn, model, since=clock().replace(year=2000))]
        else:
            (incident,) = incidents.find(conn, model=model)
            payload = {"role": str(Role.ONCALL_ML_ENGINEER), "reason": incident.description}
            page = page_text(conn, world.policy, payload, incident, now=clock())
            shown = [incident.description, page.subject, page.body, *(e.text for e in timeline.read(conn, incident.id))]
            assert "\n" not in page.subject
    assert shown
    for text in shown:
        assert not CONTROLS & set(text)
        assert "971447" not in text, "no template is rendered"
    assert "\n" not in plain(shown[0])
