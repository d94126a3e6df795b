"""A row that this version cannot read, because a newer one wrote it: nobody's page waits for it, and no other incident does."""

from __future__ import annotations

from typing import Any

import pytest

from mlrunbook.domain.detection.triage import Triage
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.investigation.diagnosis import Diagnosed
from mlrunbook.domain.records import Record
from mlrunbook.domain.roles import Role
from mlrunbook.response.communication.notifications import Page, page
from mlrunbook.response.world import World
from mlrunbook.store import incidents, records
from tests.fakes import Clock, FileWorld, LedgerNotifier
from tests.response.carrying import carry
from tests.response.people import deliver, recorded, report

NEWER: dict[Record, dict[str, Any]] = {Record.TRIAGE: {"type": "of_a_newer_version"}, Record.DIAGNOSIS: {"path": "of_a_newer_version"}}


def rewrite(world: World, incident_id: str, key: Record) -> None:
    """A newer version's row: a value that this one does not know."""
    row = recorded(world, incident_id, key) | NEWER[key]
    with world.transaction() as conn:
        records.forget(conn, incident_id, key)
        records.put(conn, incident_id, key, row, now=world.now())


@pytest.mark.parametrize("key", NEWER)
def test_a_page_goes_out_although_what_was_found_cannot_be_read(world: World, notifier: LedgerNotifier, key: Record) -> None:
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    deliver(world)
    rewrite(world, incident_id, key)
    before = len(notifier.pages())
    with world.transaction() as conn:
        call = Page(Role.ONCALL_ML_ENGINEER, "look at it", "test")
        page(conn, world.policy, incidents.get(conn, incident_id), call, now=world.now())
    deliver(world)
    assert len(notifier.pages()) > before
    assert "look at it" in notifier.pages()[-1].body


def test_a_page_goes_out_although_what_an_alert_has_put_aside_cannot_be_read(
    world: World, notifier: LedgerNotifier, clock: Clock, closed: str
) -> None:
    clock.advance(minutes=5)
    assert report(world) == closed, "opened again"
    row = recorded(world, closed, Record.REOPENED)
    with world.transaction() as conn:
        records.forget(conn, closed, Record.REOPENED)
        records.put(conn, closed, Record.REOPENED, row | {"triage": row["triage"] | NEWER[Record.TRIAGE]}, now=world.now())
    before = len(notifier.pages())
    clock.advance(seconds=world.policy.triage.page_anyway_after_s)
    deliver(world)
    assert len(notifier.pages()) > before


@pytest.mark.parametrize("key", NEWER)
def test_the_next_incident_is_handled_although_the_last_one_cannot_be_read(
    world: World, file_world: FileWorld, clock: Clock, closed: str, key: Record
) -> None:
    rewrite(world, closed, key)
    clock.advance(hours=13)
    file_world.set(serving="v2.0.0", previous="v1.5.0", deployed_at=clock().isoformat())
    clock.advance(hours=2)
    second = report(world)
    assert second != closed
    assert carry(world, second, "run-2") == "pending"


@pytest.mark.parametrize("key", NEWER)
def test_what_cannot_be_read_is_refused_with_a_sentence_that_says_what_to_do(world: World, closed: str, key: Record) -> None:
    rewrite(world, closed, key)
    kind = {Record.TRIAGE: Triage, Record.DIAGNOSIS: Diagnosed}[key]
    with world.transaction() as conn, pytest.raises(Refused, match="version of mlrunbook") as refused:
        records.recall(conn, closed, kind)
    assert key in str(refused.value)
