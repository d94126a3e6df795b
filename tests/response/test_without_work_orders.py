"""A model whose predictions become no work orders, such as one of churn or fraud: its people never read of any."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.errors import NotFound
from mlrunbook.response.world import World
from mlrunbook.store import plans, timeline
from tests.fakes import Clock, FileWorld, LedgerNotifier
from tests.response.carrying import carry
from tests.response.people import approve, deliver, recorded, report


class Plain(FileWorld):
    def work_orders(self, model: str, *, state: str | None = None) -> Any:
        raise NotFound("this platform keeps no work orders")


@pytest.mark.parametrize("trouble", ["degraded", "dangerous"])
def test_neither_messages_nor_plans_nor_the_timeline_speak_of_work_orders(
    world: World, tmp_path: Path, clock: Clock, notifier: LedgerNotifier, trouble: str
) -> None:
    plain_world = Plain(tmp_path / "plain.json", clock)
    plain_world.set(bad_versions={"v2.0.0": trouble})
    world = replace(world, platform=plain_world, runtime=plain_world)
    incident_id = report(world)
    assert carry(world, incident_id, "run-1") == "pending"
    deliver(world)
    clock.advance(minutes=31)
    deliver(world)
    approve(world, incident_id)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "closed"
    deliver(world)
    assert not [kind for kind in plain_world.applied if "scheduling" in kind or "work_orders" in kind or kind == "flag"]
    with world.transaction() as conn:
        said = [entry.text for entry in timeline.read(conn, incident_id)]
        said += [str(plan) for plan in plans.standing(conn, incident_id, *PlanKind)]
    said += [f"{m.subject}\n{m.body}" for m in notifier.sent]
    speaks = [text for text in said if "work order" in text.lower() or "work-order" in text.lower()]
    assert speaks == []
    assert "supervisors" not in {m.channel for m in notifier.sent}
    assert "work order" not in recorded(world, incident_id, "review")["markdown"].lower()
