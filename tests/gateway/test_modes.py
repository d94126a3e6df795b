"""Modes over HTTP: what was observed, and who says why a mode was changed."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Engine

from mlrunbook.domain.policy.modes import Mode
from mlrunbook.domain.policy.owned import ModelRules
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.gateway.app import create_app
from mlrunbook.response.world import World
from tests.gateway.conftest import Keys, TestClient


def test_a_gateway_that_starts_notes_the_modes_and_a_person_says_why_once(engine: Engine, world: World, keys: Keys, model: str) -> None:
    watching = replace(world, policy=Policy(models={model: ModelRules(mode=Mode.OBSERVE)}))
    with TestClient(create_app(watching)) as client:
        client.headers["Authorization"] = f"Bearer {keys.token('Ann Lee', role='ml_team_lead')}"
        [change] = client.get("/api/v1/modes", params={"model": model}).json()["changes"]
        assert (change["was"], change["mode"], change["by"]) == (None, "observe", None)
        said = client.post(f"/api/v1/modes/{model}/reason", json={"reason": "on trial for four weeks"}).json()
        assert said["why"] == "on trial for four weeks"
        assert said["by"].startswith("Ann Lee")
        assert client.post(f"/api/v1/modes/{model}/reason", json={"reason": "another"}).status_code == 422
        assert client.post("/api/v1/modes/nobody/reason", json={"reason": "another"}).status_code == 404
        answer = client.get("/api/v1/observations", params={"model": model})
        assert answer.json() == {"observations": [], "summary": "nothing was observed"}
