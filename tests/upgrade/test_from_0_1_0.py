"""An incident that 0.1.0 left suspended is carried on after the upgrade: its rows, its policy file, production as it left it.

`incidents-of-0.1.0/` and the policy file were written by the code of 0.1.0; `write_incidents_of_0_1_0.py` says how.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, NullPool, create_engine, text

from mlrunbook.base import db
from mlrunbook.base.policy_file import load, warnings
from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.incident import Status
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.local.postgres import EmbeddedPostgres
from mlrunbook.response.world import World
from mlrunbook.store import evidence, incidents, integrity, journal, outbox, plans
from tests.fakes import Clock, FileWorld, LedgerOrchestrator, world_of
from tests.response.carrying import carry
from tests.response.people import approve, deliver, recorded

HERE = Path(__file__).parent
POLICY_FILE = HERE / "runbook-of-0.1.0.yaml"
FIRST_REVISION = "0001_store"
_numbers = itertools.count(1)

ROLLED_BACK_ONCE = {
    "config:human_approval=True": 1,
    "config:auto_scheduling=False": 1,
    "rollback": 1,
    "config:human_approval=False": 1,
    "config:auto_scheduling=True": 1,
}


@dataclass(frozen=True)
class Left:
    """What 0.1.0 left behind, with today's code in front of it."""

    world: World
    file_world: FileWorld
    clock: Clock
    orchestrator: LedgerOrchestrator
    incident_id: str
    rows: dict[str, list[dict[str, Any]]]

    def carry(self, run: str) -> str:
        return carry(self.world, self.incident_id, run)


@pytest.fixture
def database(postgres: EmbeddedPostgres) -> Iterator[Engine]:
    """An empty one, without a schema."""
    name = f"upgraded_{next(_numbers)}"
    postgres.create_database(name)
    engine = create_engine(db.normalise_url(postgres.url(name)), poolclass=NullPool, connect_args={"options": "-c timezone=UTC"})
    yield engine
    engine.dispose()


Upgrade = Callable[[str], Left]


@pytest.fixture
def upgraded(database: Engine, tmp_path: Path) -> Upgrade:
    def upgrade(name: str) -> Left:
        written = json.loads((HERE / "incidents-of-0.1.0" / f"{name}.json").read_text())
        db.upgrade(database, to=written["revision"])
        with database.begin() as conn:
            insert(conn, written["tables"])
        db.upgrade(database)
        state = tmp_path / "world.json"
        state.write_text(json.dumps(written["world"]))
        clock, orchestrator = Clock(datetime.fromisoformat(written["now"])), LedgerOrchestrator()
        file_world = FileWorld(state, clock)
        world = world_of(database, file_world, clock, policy=load(HERE / written["policy_file"]), orchestrator=orchestrator)
        return Left(world, file_world, clock, orchestrator, written["incident_id"], written["tables"])

    return upgrade


def insert(conn: Connection, tables: dict[str, list[dict[str, Any]]]) -> None:
    """Rows as PostgreSQL wrote them as JSON; the next id is counted on from theirs."""
    for table, rows in tables.items():
        conn.execute(text(f"INSERT INTO {table} SELECT * FROM jsonb_populate_recordset(NULL::{table}, :rows)"), {"rows": json.dumps(rows)})
        columns = "SELECT column_name FROM information_schema.columns WHERE table_name = :table AND is_identity = 'YES'"
        for column in conn.execute(text(columns), {"table": table}).scalars():
            conn.execute(text(f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), (SELECT max({column}) FROM {table}))"))


def kept(conn: Connection, tables: dict[str, list[dict[str, Any]]]) -> bool:
    """Every row that was written is there, with every value it had."""
    conn.execute(text("SET LOCAL bytea_output = 'escape'"))
    for table, rows in tables.items():
        found = conn.execute(text(f"SELECT to_jsonb(t) FROM {table} t")).scalars().all()
        for row in rows:
            assert any(row.items() <= one.items() for one in found), f"{table} lost {row}"
    return True


def closed_as_approved(left: Left, digest: str) -> None:
    assert left.file_world.applied == ROLLED_BACK_ONCE
    assert left.file_world.state["serving"] == "v1.5.0"
    assert left.file_world.state["config"]["auto_scheduling"] is True, "containment is taken back"
    with left.world.transaction() as conn:
        incident = incidents.get(conn, left.incident_id)
        assert incident.status is Status.CLOSED
        assert incident.resolved_at is not None
        assert incident.review_due_at == incident.resolved_at + timedelta(hours=48)
        rollbacks = [row for row in journal.of_incident(conn, left.incident_id) if row.kind == "roll_back"]
        assert [row.plan_digest for row in rollbacks] == [digest], "the plan that was approved, and no other"
        assert all(row.settled for row in journal.of_incident(conn, left.incident_id))
        assert integrity.altered(conn, left.incident_id) == [], "one chain from 0.1.0's first line to today's last"
        assert "# Post-Incident Review" in recorded(left.world, left.incident_id, "review")["markdown"]
        assert {item.name for item in evidence.manifest(conn, left.incident_id)} >= {"metrics.json", "predictions.json", "config.json"}
    deliver(left.world)
    with left.world.transaction() as conn:
        assert [row for row in outbox.of_incident(conn, left.incident_id) if row["last_error"]] == [], "every row 0.1.0 left is understood"


def approved_digest(left: Left) -> str:
    (digest,) = [row["plan_digest"] for row in left.rows["approvals"] if row["door"] != "policy_rule"]
    return digest


@pytest.mark.parametrize("run", ["run-1", "run-2"], ids=["the suspended run resumes", "Prefect lost the run, another one starts"])
def test_an_incident_that_waited_for_approval_is_approved_and_closed_after_the_upgrade(upgraded: Upgrade, run: str) -> None:
    left = upgraded("waiting_for_approval")
    (shown,) = [row["digest"] for row in left.rows["plans"] if row["kind"] == "resolution"]
    with left.world.transaction() as conn:
        asked = plans.current(conn, left.incident_id, PlanKind.RESOLUTION)
    assert asked is not None
    assert asked.digest == shown, "the plan that people were shown is read back under the digest they were shown"
    assert left.carry("run-1") == "pending", "the upgrade approves nothing"
    assert left.file_world.state["serving"] == "v2.0.0"

    if run == "run-1":
        left.orchestrator.suspended.add("run-1")
    approve(left.world, left.incident_id)
    left.clock.advance(minutes=2)
    deliver(left.world)
    assert left.carry(run) == "closed"
    closed_as_approved(left, shown)


def test_a_plan_that_was_approved_before_the_upgrade_is_carried_out_once_after_it(upgraded: Upgrade) -> None:
    left = upgraded("approved")
    left.clock.advance(minutes=2)
    assert left.carry("run-1") == "closed"
    closed_as_approved(left, approved_digest(left))


@pytest.mark.parametrize("name", ["waiting_for_approval", "approved", "waiting_to_recover", "under_investigation"])
def test_what_was_there_before_the_upgrade_is_bound_into_the_chain_as_it_was_found(upgraded: Upgrade, name: str) -> None:
    left = upgraded(name)
    with left.world.transaction() as conn:
        assert integrity.altered(conn, left.incident_id) == []
        conn.execute(text("UPDATE approvals SET approver = 'the VP'"))
        conn.execute(text("UPDATE incidents SET detected_at = detected_at - interval '1 day'"))
        found = integrity.altered(conn, left.incident_id)
    assert [said for said in found if "detected_at was" in said]
    assert len(found) == 1 + len(left.rows["approvals"])


def test_an_incident_that_waited_to_recover_is_not_rolled_back_again(upgraded: Upgrade) -> None:
    left = upgraded("waiting_to_recover")
    assert left.carry("run-1") == "too early to say", "no outcome is known yet"
    left.file_world.set(labelled=True)
    left.clock.advance(minutes=2)
    assert left.carry("run-1") == "closed"
    closed_as_approved(left, approved_digest(left))


def test_an_incident_under_investigation_when_the_process_was_stopped_is_carried_on(upgraded: Upgrade) -> None:
    left = upgraded("under_investigation")
    deliver(left.world)
    assert left.carry("run-2") == "not ours", "nobody has seen yet that its run is gone"
    left.clock.advance(minutes=2)
    deliver(left.world)
    assert left.carry("run-2") == "pending", "its run has shown no sign of life"
    approve(left.world, left.incident_id)
    left.clock.advance(minutes=2)
    assert left.carry("run-2") == "closed"
    with left.world.transaction() as conn:
        plan = plans.current(conn, left.incident_id, PlanKind.RESOLUTION)
    assert plan is not None
    closed_as_approved(left, plan.digest)


@pytest.mark.parametrize("name", ["waiting_for_approval", "approved", "waiting_to_recover", "under_investigation"])
def test_the_upgrade_loses_and_alters_no_row(upgraded: Upgrade, name: str) -> None:
    left = upgraded(name)
    with left.world.transaction() as conn:
        assert kept(conn, left.rows)
        assert integrity.altered(conn, left.incident_id) == []


def test_rows_of_the_first_schema_survive_every_migration(database: Engine) -> None:
    at = "2026-03-29T00:30:00+00:00"
    rows: dict[str, list[dict[str, Any]]] = {
        "incidents": [
            {
                "number": 7,
                "id": "incident_7",
                "model": "predictive_maintenance",
                "type": "performance_degradation",
                "family": "performance",
                "severity": "high",
                "status": "contained",
                "description": "F1 fell 40 %",
                "impact": "",
                "reported_by": "alertmanager",
                "detected_at": at,
                "generation": 1,
                "alert_count": 0,
            }
        ],
        "records": [{"incident_id": "incident_7", "step": "triage", "data": {"real": True}, "recorded_at": at}],
        "quarantine": [{"id": 3, "source": "datadog", "body": "{}", "error": "no alert", "received_at": at}],
        "action_items": [
            {"id": 5, "incident_id": "incident_7", "action": "test it", "owner_role": "ml_team_lead", "due_at": at, "status": "not started"}
        ],
    }
    db.upgrade(database, to=FIRST_REVISION)
    with database.begin() as conn:
        insert(conn, rows)
    for revision in revisions():
        db.upgrade(database, to=revision)
        with database.begin() as conn:
            assert kept(conn, rows), f"{revision} lost a row"


def revisions() -> list[str]:
    """Oldest first."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "mlrunbook.store:migrations")
    return [script.revision for script in reversed(list(ScriptDirectory.from_config(config).walk_revisions()))]


def test_the_policy_file_of_0_1_0_is_read_as_it_was_meant() -> None:
    """It named cluster objects and no owner of them: they belong to nobody until somebody says whose they are, and the check says so."""
    read, today = load(POLICY_FILE), Policy()
    as_today = replace_owner(read, "predictive_maintenance").model_copy(update={"intake": today.intake})
    assert as_today == today
    mapping = read.intake.generic["default"]
    assert (mapping.firing[0], mapping.resolved[0]) == ("firing", "resolved"), "its own words go on counting"
    assert read.cluster.default_model is None
    objects, unnamed = sorted(warnings(POLICY_FILE))
    assert "cluster.default_model" in objects, objects
    assert "intake.generic" in unnamed, unnamed


def replace_owner(policy: Policy, owner: str) -> Policy:
    return policy.model_copy(update={"cluster": replace(policy.cluster, default_model=owner)})
