"""The timeline cannot be quietly edited."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, delete, select, update

from mlrunbook.store import incidents
from mlrunbook.store import timeline as chain
from mlrunbook.store.tables import timeline
from tests.fakes import T0, empty_store
from tests.store.conftest import report

ENTRIES = 6
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)


def write(conn: Connection, incident_id: str, n: int = ENTRIES - 1) -> None:
    for i in range(n):
        chain.append(
            conn, incident_id, "note", f"entry {i}", actor="the lead", at=T0 + timedelta(seconds=i), data={"number": i, "share": 0.1}
        )


@pytest.fixture
def written(engine: Engine) -> Iterator[tuple[Connection, str]]:
    """A timeline of `ENTRIES` entries; nothing of the test is committed."""
    empty_store(engine)
    with engine.connect() as conn:
        incident_id = incidents.open_or_join(conn, report(), now=T0)[0].id
        write(conn, incident_id)
        assert chain.broken_at(conn, incident_id) is None
        yield conn, incident_id
        conn.rollback()


def different(value: Any, other: Any) -> Any:
    return other if other != value else f"{other} "


@QUICK
@given(seq=st.integers(1, ENTRIES), field=st.sampled_from(["kind", "actor", "text", "prev_hash", "hash"]), other=words)
def test_an_edited_word_breaks_the_chain_at_that_entry(written: tuple[Connection, str], seq: int, field: str, other: str) -> None:
    conn, incident_id = written
    at = (timeline.c.incident_id == incident_id) & (timeline.c.seq == seq)
    with conn.begin_nested() as undo:
        value = conn.execute(select(timeline.c[field]).where(at)).scalar_one()
        conn.execute(update(timeline).where(at).values({field: different(value, other)}))
        assert chain.broken_at(conn, incident_id) == seq
        undo.rollback()


@QUICK
@given(
    seq=st.integers(1, ENTRIES),
    minutes=st.integers(1, 10**7),
    data=st.dictionaries(words, plain, min_size=1, max_size=3),
)
def test_an_edited_time_or_number_breaks_the_chain_at_that_entry(
    written: tuple[Connection, str], seq: int, minutes: int, data: dict[str, Any]
) -> None:
    conn, incident_id = written
    row = (timeline.c.incident_id == incident_id) & (timeline.c.seq == seq)
    with conn.begin_nested() as undo:
        conn.execute(update(timeline).where(row).values(at=timeline.c.at - timedelta(minutes=minutes)))
        assert chain.broken_at(conn, incident_id) == seq
        undo.rollback()
    with conn.begin_nested() as undo:
        conn.execute(update(timeline).where(row).values(data=data))
        assert chain.broken_at(conn, incident_id) == seq
        undo.rollback()


@pytest.mark.parametrize("seq", range(1, ENTRIES))
def test_a_deleted_entry_breaks_the_chain_where_it_was(written: tuple[Connection, str], seq: int) -> None:
    conn, incident_id = written
    conn.execute(delete(timeline).where(timeline.c.incident_id == incident_id, timeline.c.seq == seq))
    assert chain.broken_at(conn, incident_id) == seq


@pytest.mark.parametrize("seq", range(1, ENTRIES))
def test_a_deleted_entry_is_missed_also_when_the_rest_is_renumbered(written: tuple[Connection, str], seq: int) -> None:
    conn, incident_id = written
    mine = timeline.c.incident_id == incident_id
    conn.execute(delete(timeline).where(mine, timeline.c.seq == seq))
    for later in range(seq + 1, ENTRIES + 1):
        conn.execute(update(timeline).where(mine, timeline.c.seq == later).values(seq=later - 1))
    assert chain.broken_at(conn, incident_id) == seq


@QUICK
@given(pair=st.lists(st.integers(1, ENTRIES), min_size=2, max_size=2, unique=True))
def test_two_entries_that_change_places_break_the_chain_at_the_first(written: tuple[Connection, str], pair: list[int]) -> None:
    conn, incident_id = written
    mine = timeline.c.incident_id == incident_id
    first, second = pair
    with conn.begin_nested() as undo:
        for a, b in ((first, 0), (second, first), (0, second)):
            conn.execute(update(timeline).where(mine, timeline.c.seq == a).values(seq=b))
        assert chain.broken_at(conn, incident_id) == min(pair)
        undo.rollback()


def test_entries_of_another_incident_do_not_fit(written: tuple[Connection, str]) -> None:
    conn, incident_id = written
    other = incidents.open_or_join(conn, report(model="pump_wear"), now=T0)[0].id
    write(conn, other)
    conn.execute(delete(timeline).where(timeline.c.incident_id == incident_id, timeline.c.seq == 3))
    conn.execute(update(timeline).where(timeline.c.incident_id == other, timeline.c.seq == 3).values(incident_id=incident_id))
    assert chain.broken_at(conn, incident_id) == 3
    assert chain.broken_at(conn, other) == 3


@QUICK
@given(text=words, data=st.dictionaries(words, plain, max_size=4))
def test_whatever_is_written_verifies(written: tuple[Connection, str], text: str, data: dict[str, Any]) -> None:
    conn, incident_id = written
    with conn.begin_nested() as undo:
        chain.append(conn, incident_id, "note", text, actor="the lead", at=T0, data=data)
        assert chain.broken_at(conn, incident_id) is None
        undo.rollback()
