"""All evidence of an incident as one file that anybody can check."""

from __future__ import annotations

import hashlib
import io
import zipfile

import pytest
from sqlalchemy import update

from mlrunbook.response.world import World
from mlrunbook.store import evidence
from mlrunbook.store.tables import evidence as rows
from tests.gateway.conftest import Clock, Keys
from tests.gateway.console.conftest import Browser, SignIn


@pytest.fixture
def lead(sign_in: SignIn, keys: Keys, clock: Clock) -> Browser:
    return sign_in(keys.token("the lead", role="ml_team_lead"))


@pytest.fixture
def preserved(world: World, incident: str) -> str:
    with world.transaction() as conn:
        evidence.preserve(conn, incident, "logs/server.txt", b"it broke\n" * 1000, "text/plain", now=world.now())
        evidence.preserve(conn, incident, "page.html", b"<script>alert(1)</script>", "text/html", now=world.now())
    return incident


def test_every_file_is_in_it_and_fits_its_sum(lead: Browser, preserved: str) -> None:
    answer = lead.get(f"/incidents/{preserved}/evidence.zip")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    assert answer.headers["content-disposition"] == f'attachment; filename="{preserved}-evidence.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        held = {name.removeprefix(f"{preserved}/"): archive.read(name) for name in archive.namelist()}
    sums = dict(reversed(line.split("  ")) for line in held.pop("SHA256SUMS").decode().splitlines())
    assert sums == {name: hashlib.sha256(content).hexdigest() for name, content in held.items()}
    assert set(held) == {"logs/server.txt", "page.html", "CHAIN_HEAD"}


def test_what_was_changed_since_is_not_handed_out(world: World, lead: Browser, preserved: str) -> None:
    with world.transaction() as conn:
        conn.execute(update(rows).where(rows.c.incident_id == preserved, rows.c.name == "page.html").values(content=b"another"))
    answer = lead.get(f"/incidents/{preserved}/evidence.zip")
    assert answer.status_code == 409
    assert "page.html does not fit its SHA-256" in answer.text


def test_there_is_nothing_to_save_before_anything_was_preserved(lead: Browser, incident: str) -> None:
    assert lead.get(f"/incidents/{incident}/evidence.zip").status_code == 409
