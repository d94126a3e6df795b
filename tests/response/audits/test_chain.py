"""Whoever edits an incident in the database is found out by `verify`: what was changed, where, in words."""

from __future__ import annotations

import ast
import json
import resource
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Boolean, Connection, DateTime, Engine, Float, Integer, LargeBinary, Table, Text, cast, func, select, text, update
from sqlalchemy.dialects.postgresql import JSONB

import mlrunbook
from mlrunbook.base.anchors import Anchors
from mlrunbook.domain import chain
from mlrunbook.domain.actions import Plan, PlanKind, RollBack
from mlrunbook.domain.approval import Decision
from mlrunbook.domain.chain import Head, Length
from mlrunbook.domain.errors import Invalid, NotFound
from mlrunbook.domain.incident import Severity
from mlrunbook.response.audits.chain import check, check_all, deleted
from mlrunbook.response.communication.chain import AT_ONCE, Keeping
from mlrunbook.response.world import World
from mlrunbook.store import action_items, chain_heads, incidents, integrity, plans, row_events, tables
from mlrunbook.store import timeline as entries
from tests.fakes import Clock, FileWorld, LedgerNotifier, empty_store, world_of
from tests.response.carrying import carry
from tests.response.people import approve, deliver, report
from tests.store.conftest import report as reported

NOW = datetime(2026, 3, 29, tzinfo=UTC)
KEY, OLDER_KEY, FOREIGN_KEY = "a key of the gateway", "the key before it", "a key of somebody else"


@pytest.fixture
def anchors(tmp_path: Path) -> Anchors:
    return Anchors(tmp_path / "anchors", (KEY, OLDER_KEY))


@pytest.fixture
def world(engine: Engine, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier, anchors: Anchors) -> World:
    empty_store(engine)
    return replace(world_of(engine, file_world, clock, notifier=notifier), anchors=anchors)


@pytest.fixture(scope="module")
def written(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Connection, str]]:
    """A bad release, closed, in a transaction of which nothing is committed."""
    empty_store(engine)
    clock = Clock()
    world = world_of(engine, FileWorld(tmp_path_factory.mktemp("chain") / "world.json", clock), clock)
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    approve(world, incident_id)
    clock.advance(minutes=2)
    carry(world, incident_id, "run-1")
    deliver(world)
    with world.transaction() as conn:
        action_items.add(conn, incident_id, "Watch the sensors", owner_role="lead", due_at=clock())
    with engine.connect() as conn:
        assert integrity.altered(conn, incident_id) == []
        yield conn, incident_id
        conn.rollback()


TAIL = "(SELECT max(seq) - 10 FROM timeline WHERE incident_id = :i)"
FIRST_EVIDENCE = "(SELECT min(seq) FROM timeline WHERE incident_id = :i AND kind = 'evidence')"
SWAPPED = "(SELECT text FROM timeline u WHERE u.incident_id = t.incident_id AND u.seq = 9 - t.seq)"
EDITS = {
    "one text": ["UPDATE timeline SET text = 'nothing happened' WHERE incident_id = :i AND seq = 3"],
    "one entry of the middle is deleted": ["DELETE FROM timeline WHERE incident_id = :i AND seq = 4"],
    "two texts change places": [f"UPDATE timeline t SET text = {SWAPPED} WHERE incident_id = :i AND seq IN (4, 5)"],
    "a time": ["UPDATE timeline SET at = at + interval '1 hour' WHERE incident_id = :i AND seq = 2"],
    "an actor": ["UPDATE timeline SET actor = 'somebody' WHERE incident_id = :i AND seq = 2"],
    "the first entry is deleted": ["DELETE FROM timeline WHERE incident_id = :i AND seq = 1"],
    "the last ten are deleted": [f"DELETE FROM timeline WHERE incident_id = :i AND seq > {TAIL}"],
    "all of it is deleted": ["DELETE FROM timeline WHERE incident_id = :i"],
    "who approved": ["UPDATE approvals SET approver = 'somebody else', reason = 'x' WHERE incident_id = :i"],
    "the journal's target": ["UPDATE actions SET target = '{\"target_version\": \"v9\"}', summary = 'x' WHERE incident_id = :i"],
    "severity and times": [
        "UPDATE incidents SET acknowledged_by = 'x', severity = 'low', detected_at = detected_at - interval '1 day' WHERE id = :i"
    ],
    "content of the evidence": ["UPDATE evidence SET content = 'x' WHERE incident_id = :i AND name = 'metrics.json'"],
    "the evidence's manifest": ["UPDATE evidence SET content = '{\"files\":[]}' WHERE incident_id = :i AND name = 'manifest.json'"],
    "all evidence is deleted": ["DELETE FROM evidence WHERE incident_id = :i"],
    "an approval, and the hashes recomputed": [
        "UPDATE timeline SET text = 'The VP approved it', actor = 'VP' WHERE incident_id = :i AND kind = 'approval'",
        "rehash",
    ],
    "approvals are deleted, and the hashes recomputed": [
        "DELETE FROM timeline WHERE incident_id = :i AND kind IN ('approval', 'action')",
        "rehash",
    ],
    "the timeline is cut before the evidence, and that deleted": [
        f"DELETE FROM timeline WHERE incident_id = :i AND seq > {FIRST_EVIDENCE} - 1",
        "DELETE FROM evidence WHERE incident_id = :i",
    ],
    # further kinds
    "an approval is back-dated": ["UPDATE approvals SET at = at - interval '2 hours' WHERE incident_id = :i"],
    "an approval is kept alive": ["UPDATE approvals SET expires_at = 'infinity' WHERE incident_id = :i"],
    "a voided approval counts again": [
        "UPDATE approvals SET voided_at = now(), voided_because = 'x' WHERE incident_id = :i",
    ],
    "an approval is put in": [
        "INSERT INTO approvals (incident_id, plan_digest, decision, approver, person, door, verified, at)"
        " SELECT incident_id, digest, 'approved', 'the VP', 'the vp', 'rest', true, now() FROM plans WHERE incident_id = :i LIMIT 1"
    ],
    "a plan's body": ["UPDATE plans SET body = jsonb_set(body, '{why}', '\"x\"') WHERE incident_id = :i"],
    "a plan stands again": ["UPDATE plans SET superseded_at = now() WHERE incident_id = :i"],
    "a record is deleted": ["DELETE FROM records WHERE incident_id = :i AND step = 'diagnosis'"],
    "a record is put in": ["INSERT INTO records VALUES (:i, 'human_resolution', '{\"by\": \"nobody\"}', now())"],
    "the review": ["UPDATE records SET data = '{}' WHERE incident_id = :i AND step = 'review'"],
    "a change is deleted": [
        "DELETE FROM actions WHERE ctid = (SELECT ctid FROM actions WHERE incident_id = :i AND undo_of IS NOT NULL LIMIT 1)"
    ],
    "the events are deleted": ["DELETE FROM row_events WHERE incident_id = :i"],
    "the last events are deleted with what they say": [
        "DELETE FROM row_events WHERE incident_id = :i AND seq > (SELECT max(seq) - 5 FROM row_events WHERE incident_id = :i)"
    ],
    "the note of where the chain stands is deleted": ["DELETE FROM chain_heads WHERE incident_id = :i"],
    "the model": ["UPDATE incidents SET model = 'another' WHERE id = :i"],
    "severity is none that there is": ["UPDATE incidents SET severity = 'none' WHERE id = :i"],
    "a head on the timeline": [
        "UPDATE timeline SET data = data || '{\"chain_head\": \"nonsense\"}' WHERE incident_id = :i AND data ? 'chain_head'"
    ],
    "an entry is put in before the first": [
        "INSERT INTO timeline SELECT incident_id, 0, at, 'human_resolution', 'the VP', 'fixed', '{}', prev_hash, hash FROM timeline"
        " WHERE incident_id = :i AND seq = 1"
    ],
    "a record is put in with an event before the first": [
        "INSERT INTO records VALUES (:i, 'human_resolution', '{\"by\": \"nobody\"}', now())",
        "INSERT INTO row_events VALUES (:i, -1, now(), 'records', 'human_resolution', '{}', 'x', 'x')",
    ],
    "an event holds a number": ["UPDATE row_events SET content = '3' WHERE incident_id = :i AND seq = 1"],
    "an event holds a list": [
        "UPDATE row_events SET content = '[]' WHERE incident_id = :i AND seq = (SELECT max(seq) FROM row_events WHERE incident_id = :i)"
    ],
    "the last event of a row holds an object": [
        'UPDATE row_events SET content = \'{"id": {"a": 1}}\' WHERE incident_id = :i'
        " AND seq = (SELECT max(seq) FROM row_events WHERE incident_id = :i AND table_name = 'incidents')"
    ],
    "an event nested too deep to be read": [
        "UPDATE row_events SET content = (repeat('[', 5000) || repeat(']', 5000))::jsonb WHERE incident_id = :i AND seq = 1"
    ],
    "an entry nested too deep to be read": [
        "UPDATE timeline SET data = (repeat('[', 5000) || repeat(']', 5000))::jsonb WHERE incident_id = :i AND seq = 1"
    ],
    "a time without end": ["UPDATE timeline SET at = 'infinity' WHERE incident_id = :i AND seq = 2"],
}


def rehash(conn: Connection, incident_id: str, strand: Table = tables.timeline, names: tuple[str, ...] = entries.LINKED) -> chain.Length:
    """As somebody who has read our code does it: renumbered, every hash recomputed."""
    rows = conn.execute(select(strand).where(strand.c.incident_id == incident_id).order_by(strand.c.seq)).all()
    conn.execute(strand.delete().where(strand.c.incident_id == incident_id))
    prev = chain.GENESIS
    for number, row in enumerate(rows, 1):
        values = dict(row._mapping) | {"seq": number}
        hash_ = chain.link({name: values[name] for name in names}, prev)
        conn.execute(strand.insert().values(values | {"prev_hash": prev, "hash": hash_}))
        prev = hash_
    return Length(len(rows), 0)


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_of_the_database_is_found(written: tuple[Connection, str], edit: str) -> None:
    conn, incident_id = written
    with conn.begin_nested() as undo:
        for statement in EDITS[edit]:
            if statement == "rehash":
                rehash(conn, incident_id)
            else:
                assert conn.execute(text(statement), {"i": incident_id}).rowcount, "it changes something"
        assert integrity.altered(conn, incident_id), edit
        undo.rollback()
    assert integrity.altered(conn, incident_id) == []


def test_a_head_whose_time_nobody_can_read_hides_nothing(written: tuple[Connection, str]) -> None:
    conn, incident_id = written
    with conn.begin_nested() as undo:
        conn.execute(text("UPDATE chain_heads SET changed_at = 'infinity'"))
        assert integrity.altered(conn, incident_id) == []
        conn.execute(text("UPDATE timeline SET text = 'x' WHERE incident_id = :i AND seq = 3"), {"i": incident_id})
        assert integrity.altered(conn, incident_id) == [chain.ENTRY_CHANGED.format(3)]
        undo.rollback()


CHAINED = [tables.timeline, tables.row_events]
COLUMNS = [
    (table, column.name)
    for table in [*row_events.COVERED, *CHAINED]
    for column in table.c
    if column.name not in row_events.NOT_COVERED.get(table, ())
]


def other_value(column: Any, seed: int) -> Any:
    """Another value of its type, by SQL from the one that is there."""
    match column.type:
        case Boolean():
            return ~column
        case DateTime():
            return func.coalesce(column, func.now()) + func.make_interval(0, 0, 0, 0, 0, 0, seed / 1000)
        case LargeBinary():
            return column.concat(f"{seed}".encode())
        case JSONB():
            return func.jsonb_build_object("seed", seed, "was", column)
        case Integer() | Float():
            return func.coalesce(column, 0) + seed + 1_000_000
        case Text():
            return func.coalesce(cast(column, Text), "").concat(f" {seed}")
    raise AssertionError(column)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.sampled_from(COLUMNS), which=st.integers(0, 1_000), seed=st.integers(1, 100_000))
def test_any_column_of_any_row_that_somebody_changes_is_found(
    written: tuple[Connection, str], where: tuple[Table, str], which: int, seed: int
) -> None:
    conn, incident_id = written
    table, name = where
    mine = row_events.of_incident(table) == incident_id if table in row_events.COVERED else table.c.incident_id == incident_id
    rows = conn.execute(select(text("ctid")).select_from(table).where(mine).order_by(text("ctid"))).scalars().all()
    value = other_value(table.c[name], seed)
    if table is tables.incidents and name == "id":
        return  # it is another incident then, and this one is gone: `verify` is asked about that by name
    assert rows, f"{table.name} has no row to change"
    with conn.begin_nested() as undo:
        conn.execute(text("SET LOCAL session_replication_role = replica"))  # whoever owns the database minds no foreign key
        conn.execute(update(table).where(text("ctid = CAST(:at AS tid)").bindparams(at=rows[which % len(rows)])).values({name: value}))
        found = integrity.altered(conn, incident_id)
        assert found, f"{table.name}.{name}"
        undo.rollback()


def test_the_words_say_which_row_and_what_it_was(written: tuple[Connection, str]) -> None:
    conn, incident_id = written
    with conn.begin_nested() as undo:
        number = conn.execute(select(func.max(tables.approvals.c.id)).where(tables.approvals.c.approver == "the lead")).scalar_one()
        conn.execute(update(tables.approvals).where(tables.approvals.c.id == number).values(approver="the VP"))
        [said] = integrity.altered(conn, incident_id)
        assert said == f"Approval {number} was changed past mlrunbook: approver was 'the lead' and is 'the VP'"
        undo.rollback()


def test_a_whole_rewrite_is_found_by_the_heads_that_were_sent_out(world: World, closed: str, notifier: LedgerNotifier) -> None:
    assert check_all(world, closed) == []
    seen = [m.body.splitlines()[-1] for m in notifier.sent]
    assert all(line.startswith("Chain ") for line in seen)
    with world.transaction() as conn:
        conn.execute(text("UPDATE timeline SET text = 'The VP approved it' WHERE incident_id = :i AND kind = 'approval'"), {"i": closed})
        rewrite(conn, closed)
    without = replace(world, anchors=None)
    assert any("was rewritten" in said for said in check_all(without, closed)), "by the notes on the timeline"
    with world.transaction() as conn:
        conn.execute(text("UPDATE timeline SET data = data - 'chain_head' WHERE incident_id = :i"), {"i": closed})
        rewrite(conn, closed)
    assert check_all(without, closed) == [], "nothing inside the database is left to tell it"
    [said, *_] = check_all(world, closed)
    assert "the anchor of" in said
    pasted = check(without, closed, pasted=Head.parse(seen[-1]))
    assert "the head you gave" in pasted.faults[0].sentence


def rewrite(conn: Connection, incident_id: str) -> None:
    """Both strands, and the store's own note."""
    rehash(conn, incident_id)
    rehash(conn, incident_id, tables.row_events, integrity.EVENT_LINKED)
    last = {
        name: conn.execute(select(s.c.seq, s.c.hash).where(s.c.incident_id == incident_id).order_by(s.c.seq.desc()).limit(1)).one()
        for name, s in (("entries", tables.timeline), ("events", tables.row_events))
    }
    stands = {"entries": last["entries"].seq, "entries_hash": last["entries"].hash}
    stands |= {"events": last["events"].seq, "events_hash": last["events"].hash}
    conn.execute(update(tables.chain_heads).where(tables.chain_heads.c.incident_id == incident_id).values(**stands))


def test_a_tail_that_was_cut_with_everything_that_knew_of_it_is_found_by_the_anchors(world: World, closed: str) -> None:
    with world.transaction() as conn:
        conn.execute(text("DELETE FROM timeline WHERE incident_id = :i AND seq > 12"), {"i": closed})
        rewrite(conn, closed)
    assert any("The end of the chain was cut off" in said for said in check_all(world, closed))


def test_an_incident_that_was_deleted_is_named_with_what_it_had(world: World, closed: str, anchors: Anchors) -> None:
    before = anchors.newest(closed)
    assert before is not None
    with world.transaction() as conn:
        for table in ("outbox", "leases", "action_items", "records", "actions", "approvals", "plans", "evidence", "alerts", "timeline"):
            conn.execute(text(f"DELETE FROM {table} WHERE incident_id = :i"), {"i": closed})
        conn.execute(text("DELETE FROM incidents WHERE id = :i"), {"i": closed})
        for table in ("row_events", "chain_heads"):
            conn.execute(text(f"DELETE FROM {table} WHERE incident_id = :i"), {"i": closed})
    [said] = deleted(world)
    assert closed in said
    assert before.head.length.words in said
    with pytest.raises(NotFound, match="was deleted from the database"):
        check(world, closed)


def test_a_head_counts_as_signed_only_by_our_keys(closed: str, world: World, anchors: Anchors) -> None:
    with world.transaction() as conn:
        head = chain_heads.get(conn, closed)
    assert head is not None
    ours, rotated = chain.signed(closed, head, [KEY]), chain.signed(closed, head, [OLDER_KEY])
    foreign, forged = chain.signed(closed, head, [FOREIGN_KEY]), replace(ours, signature=str(ours.signature)[:-1] + "z")
    proofs = [chain.proof(closed, one, anchors.keys) for one in (ours, rotated, foreign, head)]
    assert proofs == [chain.Proof.GOOD, chain.Proof.GOOD, chain.Proof.OTHER_KEY, chain.Proof.UNSIGNED]
    assert chain.proof(closed, forged, anchors.keys) is chain.Proof.FORGED
    assert chain.proof("incident_0", ours, anchors.keys) is chain.Proof.FORGED, "a head is of one incident"


@given(st.integers(0, 10**9 - 1), st.integers(0, 10**9 - 1), st.text("0123456789abcdef", min_size=24, max_size=24), st.booleans())
def test_a_head_reads_back_as_it_is_shown(entries_: int, events: int, hash_: str, is_signed: bool) -> None:
    head = Head(Length(entries_, events), hash_)
    head = chain.signed("incident_1", head, [KEY]) if is_signed else head
    assert Head.parse(f"Chain {head}") == head
    assert Head.parse(str(head)) == head
    assert len(f"Chain {head}") <= 100


@pytest.mark.parametrize("cut", [1, 23, 28])
def test_a_head_whose_signature_was_cut_short_is_refused_and_not_read_as_unsigned(cut: int) -> None:
    head = chain.signed("incident_1", Head(Length(31, 57), "9f3a" * 6), [KEY])
    with pytest.raises(Invalid, match="copy the whole last line"):
        Head.parse(f"Chain {head}"[:-cut])


def test_pages_of_a_chain_find_the_same_as_the_whole(world: World, closed: str) -> None:
    with world.transaction() as conn:
        conn.execute(text("UPDATE timeline SET actor = 'x' WHERE incident_id = :i AND seq IN (3, 17)"), {"i": closed})
        conn.execute(text("UPDATE row_events SET key = 'x' WHERE incident_id = :i AND seq = 9"), {"i": closed})
    after, found, pages = Length(), [], 0
    while True:
        page = check(world, closed, after=after, links=7)
        found += [fault.sentence for fault in page.faults]
        after, pages = page.upto, pages + 1
        if not page.more:
            break
    assert pages > 5
    assert found == check_all(world, closed)
    assert [said for said in found if "Entry" in said] == [chain.ENTRY_CHANGED.format(3), chain.ENTRY_CHANGED.format(17)]


def test_a_disk_that_takes_no_anchor_keeps_no_page(world: World, tmp_path: Path, notifier: LedgerNotifier) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("")
    on_full_disk = replace(world, anchors=Anchors(blocked / "anchors", (KEY,)))
    report(on_full_disk, Severity.CRITICAL, by_alert=False)
    deliver(on_full_disk)
    assert notifier.pages()
    assert all(chain.key_id(KEY) in m.body for m in notifier.pages()), "signed all the same"


def test_what_was_anchored_is_one_line_a_head_and_survives_a_torn_one(world: World, closed: str, anchors: Anchors) -> None:
    file = anchors.folder / f"{closed}.jsonl"
    heads = [json.loads(line)["head"] for line in file.read_text().splitlines()]
    assert len(heads) == len(set(heads)), "each once"
    with open(file, "a") as out:
        out.write('{"entries": 9, "hea')
    assert check_all(world, closed) == []
    before = anchors.newest(closed)
    assert before is not None
    longer = Head(Length(before.head.length.entries + 1, before.head.length.events), "0" * chain.SHORT)
    anchors.add(closed, longer, now=world.now())
    after = anchors.newest(closed)
    assert after is not None
    assert after.head.length == longer.length, "the next one is not lost with it"


def test_an_anchor_that_a_full_disk_cuts_short_is_not_kept(tmp_path: Path) -> None:
    anchors, head = Anchors(tmp_path, (KEY,)), Head(Length(1, 1), "0" * chain.SHORT)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, hard))
    try:
        with pytest.raises(OSError, match="No space left"):
            anchors.add("incident_1", head, now=NOW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    anchors.add("incident_1", head, now=NOW)
    kept = anchors.newest("incident_1")
    assert kept is not None
    assert kept.head.length == head.length


def test_approvals_of_many_incidents_change_at_once_each_in_its_own_chain(world: World) -> None:
    """As when a clock was set back and everything that expires is moved."""
    ids = []
    for model in ("pump", "valve"):
        with world.transaction() as conn:
            one = incidents.open_or_join(conn, reported(model=model), now=world.now())[0].id
            digest = plans.propose(conn, Plan(one, PlanKind.RESOLUTION, model, (RollBack(model, "v1"),), ("it is bad",)), now=world.now())
            plans.decide(conn, one, digest, Decision("approved", "the lead", None, "rest"), now=world.now(), expires_at=world.now())
            ids.append(one)
    earlier = tables.approvals.c.expires_at - func.make_interval(0, 0, 0, 0, 1)
    with world.transaction() as conn:
        moved = row_events.change(
            conn, update(tables.approvals).where(tables.approvals.c.expires_at.is_not(None)).values(expires_at=earlier)
        )
    assert sorted(row["incident_id"] for row in moved) == sorted(ids)
    assert [check_all(world, one) for one in ids] == [[], []]


def test_nothing_of_ours_writes_a_covered_row_past_the_chain() -> None:
    covered = {table.name for table in row_events.COVERED}
    past = []
    for file in Path(mlrunbook.__file__).parent.rglob("*.py"):
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "execute":
                past += [f"{file.name}: {name}" for name in written_by(call) if name in covered]
    assert past == ["incidents.py: incidents"], "only the counter of alerts, which is not covered"


def written_by(call: ast.Call) -> list[str]:
    """The tables of INSERT, UPDATE and DELETE among a call's arguments."""
    made = [node for node in ast.walk(call) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return [
        str(getattr(m.args[0], "attr", getattr(m.args[0], "id", "")))
        for m in made
        if m.func.id in ("insert", "update", "delete", "upsert") and m.args
    ]


def test_every_head_is_kept_once_also_when_thousands_change_in_one_transaction(world: World, anchors: Anchors) -> None:
    many = 2 * AT_ONCE + 50
    fill = "INSERT INTO chain_heads (incident_id, entries, changed_at) SELECT 'incident_' || n, 1, now() FROM generate_series(1, :many) n"
    with world.transaction() as conn:
        conn.execute(text(fill), {"many": many})
    keeping = Keeping(world)
    for _ in range(8):
        keeping.look()
    assert len(anchors.incidents()) == many
    assert all(len((anchors.folder / f"{one}.jsonl").read_text().splitlines()) == 1 for one in anchors.incidents())
    with world.transaction() as conn:
        conn.execute(text("UPDATE chain_heads SET entries = 2, changed_at = clock_timestamp() WHERE incident_id = 'incident_7'"))
    keeping.look()
    assert len((anchors.folder / "incident_7.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    "edit",
    [
        "INSERT INTO chain_heads (incident_id, entries, changed_at) VALUES ('../elsewhere', 1, now())",
        "INSERT INTO chain_heads (incident_id, entries, changed_at) VALUES ('incident_77', 1, '2999-01-01')",
        "UPDATE chain_heads SET changed_at = '2999-01-01'",
        "UPDATE chain_heads SET changed_at = 'infinity'",
    ],
)
def test_no_edit_of_one_head_keeps_the_others_from_being_anchored(world: World, closed: str, anchors: Anchors, edit: str) -> None:
    running = Keeping(world)
    running.look()
    with world.transaction() as conn:
        conn.execute(text(edit))
    running.look()
    for keeping, model in ((running, "pump"), (Keeping(world), "valve")):
        with world.transaction() as conn:
            one = incidents.open_or_join(conn, reported(model=model), now=world.now())[0].id
        keeping.look()
        assert anchors.newest(one) is not None


def test_after_a_restore_only_what_the_chain_still_has_is_anchored(world: World, closed: str, anchors: Anchors) -> None:
    newest = anchors.newest(closed)
    assert newest is not None
    anchors.cut(closed, Length(newest.head.length.entries - 1, newest.head.length.events))
    shorter = anchors.newest(closed)
    assert shorter is None or shorter.head.length < newest.head.length
