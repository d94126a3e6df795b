"""A value that the database refuses is the caller's mistake, and never looks like a store that is away."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, text

from mlrunbook.base.db import transaction
from mlrunbook.domain.errors import Transient, Unstorable

LONG = "".join(chr(0x4E00 + n % 20_000) for n in range(9_000))
REFUSED = {
    "NUL in a text": ("SELECT cast(:v AS text)", "a\x00b"),
    "a lone surrogate": ("SELECT cast(:v AS text)", "a\ud800"),
    "NUL in JSON": ("SELECT cast(:v AS jsonb)", '{"a": "\\u0000"}'),
    "half a surrogate in JSON": ("SELECT cast(:v AS jsonb)", '{"a": "\\ud800"}'),
    "no JSON": ("SELECT cast(:v AS jsonb)", "NaN"),
    "a number of 400 digits": ("SELECT cast(:v AS bigint)", 10**400),
    "a year that Python does not know": ("SELECT cast(:v AS timestamptz) + interval '1 year'", datetime(9999, 12, 31, tzinfo=UTC)),
    "an index row that is too long": (
        "INSERT INTO tokens (id, name, person, scopes, sha256, created_at) VALUES (:v, '', '', '{}', '', now())",
        LONG,
    ),
}


@pytest.mark.parametrize("what", sorted(REFUSED))
def test_what_the_database_refuses_is_unstorable_and_says_what_to_look_for(store: Engine, what: str) -> None:
    query, value = REFUSED[what]
    with pytest.raises(Unstorable, match="cannot be stored"), transaction(store) as conn:
        conn.execute(text(query), {"v": value}).all()


def test_a_lock_that_nobody_gives_is_worth_another_try(store: Engine) -> None:
    def lock_in_vain() -> None:
        with transaction(store) as conn:
            conn.execute(text("SET LOCAL lock_timeout = '50ms'"))
            conn.execute(text("LOCK TABLE alerts"))

    with transaction(store) as held:
        held.execute(text("LOCK TABLE alerts"))
        with pytest.raises(Transient):
            lock_in_vain()
