"""Incidents as people look for them: by filters, and by words of what happened and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, exists, func, literal_column, or_, select, text, union
from sqlalchemy.sql.elements import TextClause

from mlrunbook.domain.incident import Incident, IncidentType, Severity, Status
from mlrunbook.store.incidents import FIELDS, incident_of
from mlrunbook.store.tables import CAUSE_STEPS, CAUSE_WORDS, INCIDENT_WORDS, ONE_OPEN, incidents, records

MOST_WORDS = 8
NEWEST = 500


@dataclass(frozen=True)
class Wanted:
    """Which incidents; a part that is empty asks for nothing. `words`: each begins a word of the model's name, the description, the impact
    or the root cause; an incident's id or number finds that one. `models`: patterns, of a token that is limited to them."""

    only_open: bool = False
    status: Status | None = None
    severity: Severity | None = None
    type: IncidentType | None = None
    model: str = ""
    since: datetime | None = None
    words: str = ""
    models: tuple[str, ...] = ()


def find(conn: Connection, wanted: Wanted, *, before: int | None = None, limit: int) -> list[tuple[int, Incident]]:
    """Newest first, below the number `before`, each with its number."""
    if not wanted.words.strip():
        rows = conn.execute(_wanted(wanted, before).limit(limit)).all()
    else:  # a word that many have is found among the newest; the index, which gives them all, is for the others
        rows = conn.execute(among_newest(wanted, before=before, limit=limit)).all()
        older = _wanted(wanted, before).with_only_columns(incidents.c.number).offset(NEWEST).limit(1)
        if len(rows) < limit and conn.execute(older).first():
            rows = conn.execute(by_index(wanted, before=before, limit=limit)).all()
    return [(row.number, incident_of(row)) for row in rows]


def among_newest(wanted: Wanted, *, before: int | None, limit: int) -> Select[Any]:
    newest = _wanted(wanted, before).limit(NEWEST).subquery("newest")
    asked = _query_of(wanted.words)
    caused = exists().where(records.c.incident_id == newest.c.id, text(CAUSE_STEPS), literal_column(CAUSE_WORDS).op("@@")(asked))
    says = or_(newest.c.number.in_(_numbers(wanted.words)), literal_column(INCIDENT_WORDS).op("@@")(asked), caused)
    return select(newest).where(says).order_by(newest.c.number.desc()).limit(limit)


def by_index(wanted: Wanted, *, before: int | None, limit: int) -> Select[Any]:
    one, asked = incidents.alias("one"), _query_of(wanted.words)
    caused = select(records.c.incident_id).where(text(CAUSE_STEPS), literal_column(CAUSE_WORDS).op("@@")(asked))
    found = union(
        select(one.c.number).where(one.c.number.in_(_numbers(wanted.words))),
        select(one.c.number).where(literal_column(INCIDENT_WORDS).op("@@")(asked)),
        select(one.c.number).where(one.c.id.in_(caused)),
    )
    return _wanted(wanted, before).where(incidents.c.number.in_(found)).limit(limit)


def _wanted(wanted: Wanted, before: int | None) -> Select[Any]:
    found = select(incidents.c.number, *FIELDS).where(*_filters(wanted)).order_by(incidents.c.number.desc())
    return found if before is None else found.where(incidents.c.number < before)


def seen(model: ColumnElement[Any], patterns: Iterable[str]) -> ColumnElement[bool]:
    """Whether the model is one that a token with these patterns is good for; without patterns every model is."""
    fitting = [model.like(_as_like(pattern), escape="\\") for pattern in patterns]
    return or_(*fitting) if fitting else text("true")  # type: ignore[return-value]


def _filters(wanted: Wanted) -> Iterable[ColumnElement[bool] | TextClause]:
    c = incidents.c
    if wanted.only_open:
        yield text(ONE_OPEN)
    for column, value in ((c.status, wanted.status), (c.severity, wanted.severity), (c.type, wanted.type)):
        if value is not None:
            yield column == value.value
    if wanted.model:
        yield c.model == wanted.model
    if wanted.since is not None:
        yield c.detected_at >= wanted.since
    if wanted.models:
        yield seen(c.model, wanted.models)


def _query_of(words: str) -> ColumnElement[Any]:
    sought = " & ".join(_quoted(word) for word in words.split()[:MOST_WORDS] if any(char.isalnum() for char in word))
    return func.to_tsquery(literal_column("'simple'"), sought)


def _numbers(words: str) -> Sequence[int]:
    """Of `incident_17`, `#17` and `17`, said alone."""
    said = words.strip().lower().removeprefix("incident_").removeprefix("#")
    return [int(said)] if said.isascii() and said.isdigit() and len(said) < 19 else []


def _quoted(word: str) -> str:
    """One operand of to_tsquery: text, whatever stands in it, that a word begins with."""
    plain = word.replace("_", " ").replace("\\", "\\\\").replace("'", "''").replace("\x00", "")
    return f"'{plain}':*"


def _as_like(pattern: str) -> str:
    """
    >>> _as_like("churn_*"), _as_like("pump?")
    ('churn\\\\_%', 'pump_')
    """
    return pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_").replace("*", "%").replace("?", "_")
