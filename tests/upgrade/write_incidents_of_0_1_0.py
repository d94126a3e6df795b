"""Writes the files `incidents-of-0.1.0/*.json`: incidents as version 0.1.0 left them. Runs on the code of 0.1.0, not on today's:

    git worktree add ../v0.1.0 fc8a587
    cd ../v0.1.0 && PYTHONPATH=. ../main/.venv/bin/python ../main/tests/upgrade/write_incidents_of_0_1_0.py ../main/tests/upgrade
    cd ../main && git worktree remove ../v0.1.0

`../main` is the checkout of today. It also copies 0.1.0's runbook.yaml. PostgreSQL, steps and store are 0.1.0's own; platform and runtime
are the ones of its tests (`tests/fakes.py`), whose state goes into the file too: production does not change when we are upgraded.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from mlrunbook.embedded_postgres import EmbeddedPostgres
from mlrunbook.policy_file import load
from mlrunbook.steps import investigation, lifecycle, rollback_target, triage
from mlrunbook.wiring import World
from sqlalchemy import Engine, text

from mlrunbook import db
from tests import fakes
from tests.steps.people import approve, deliver, report
from tests.steps.protocol import carry, no_sleep, step_2

POLICY = "runbook-of-0.1.0.yaml"


def waiting_for_approval(world: World, file_world: fakes.FileWorld) -> str:
    """A bad release, contained and investigated; its rollback waits for the team lead."""
    incident_id = report(world)
    assert carry(world, incident_id, "run-1") == "pending"
    return incident_id


def approved(world: World, file_world: fakes.FileWorld) -> str:
    """As before, and approved; the dispatcher has not started the run that carries it out."""
    incident_id = waiting_for_approval(world, file_world)
    approve(world, incident_id)
    return incident_id


def waiting_to_recover(world: World, file_world: fakes.FileWorld) -> str:
    """Approved and rolled back; the outcomes that would prove the recovery are not known yet."""
    incident_id = approved(world, file_world)
    file_world.set(labelled=False)
    assert carry(world, incident_id, "run-1") == "too early to say"
    return incident_id


def under_investigation(world: World, file_world: fakes.FileWorld) -> str:
    """Contained; the process was killed after three checks of the list."""
    incident_id = report(world)
    run = lifecycle.take(world, incident_id, "run-1")
    assert run is not None
    triage.triage(run, sleep=no_sleep)
    step_2(run)
    rollback_target.choose(run)
    for name in list(investigation.CHECKS)[:3]:
        investigation.check(run, name)
    return incident_id


def dump(engine: Engine, incident_id: str, file_world: fakes.FileWorld, world: World, story: str) -> str:
    """Every row of every table, in PostgreSQL's own JSON: times in ISO 8601, bytes in its escape format."""
    tables = {}
    with engine.begin() as conn:
        conn.execute(text("SET LOCAL bytea_output = 'escape'"))
        for table in db.metadata.sorted_tables:
            name = table.fullname
            order = ", ".join(column.name for column in table.primary_key)
            rows = conn.execute(text(f"SELECT to_jsonb(t) FROM {name} t ORDER BY {order}")).scalars().all()
            if rows:
                tables[name] = rows
        revision = conn.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    head = {
        "written_by": "mlrunbook 0.1.0 (commit fc8a587); to write it anew: tests/upgrade/write_incidents_of_0_1_0.py",
        "story": story,
        "revision": revision,
        "now": world.now().isoformat(),
        "incident_id": incident_id,
        "policy_file": POLICY,
        "world": file_world.state,
        "tables": tables,
    }
    return json.dumps(head, indent=1, sort_keys=False, ensure_ascii=False) + "\n"


def main(into: Path) -> None:
    fakes.ROWS = 10  # of the prediction log in the evidence: a file that can be read
    shutil.copyfile("runbook.yaml", into / POLICY)
    folder = into / "incidents-of-0.1.0"
    folder.mkdir(exist_ok=True)
    stories: list[Callable[[World, fakes.FileWorld], str]] = [waiting_for_approval, approved, waiting_to_recover, under_investigation]
    with tempfile.TemporaryDirectory(dir="/tmp") as scratch, EmbeddedPostgres(Path(scratch) / "store", durable=False) as server:
        for story in stories:
            server.create_database(story.__name__)
            engine = db.engine(server.url(story.__name__))
            db.upgrade(engine)
            clock = fakes.Clock()
            file_world = fakes.FileWorld(Path(scratch) / f"{story.__name__}.json", clock)
            world = fakes.world_of(engine, file_world, clock, policy=load(into / POLICY))
            incident_id = story(world, file_world)
            clock.at += timedelta(seconds=5)
            deliver(world)
            (folder / f"{story.__name__}.json").write_text(dump(engine, incident_id, file_world, world, story.__doc__ or ""))
            engine.dispose()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
