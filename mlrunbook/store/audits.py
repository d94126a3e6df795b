"""Audits as they were filed, and the drills that were held. An audit's record is written once and never changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Connection, Row, select, tuple_
from sqlalchemy.dialects.postgresql import insert

from mlrunbook.domain.audits.period import Kind
from mlrunbook.domain.audits.section import Audit, Verdict
from mlrunbook.domain.errors import NotFound
from mlrunbook.store.incident_search import seen
from mlrunbook.store.tables import audits, drills

_SHOWN = [c for c in audits.c if c.name != "report"]  # the report is some 100 KB


@dataclass(frozen=True)
class Filed:
    """The record of one audit. `sections` in their order: key, title, verdict, sentence, change, incident_id."""

    id: int
    model: str
    kind: Kind
    period: str
    since: datetime
    until: datetime
    at: datetime
    verdict: Verdict
    sections: Sequence[Mapping[str, Any]]
    sha256: str

    @property
    def verdicts(self) -> dict[str, Verdict]:
        return {s["key"]: Verdict(s["verdict"]) for s in self.sections}

    @property
    def by_calendar(self) -> bool:
        """Of a whole calendar period, not a look by hand up to some minute."""
        return " " not in self.period

    @property
    def incident_ids(self) -> list[str]:
        return list(dict.fromkeys(s["incident_id"] for s in self.sections if s["incident_id"]))


@dataclass(frozen=True)
class Drill:
    held_at: datetime
    what: str
    result: str


def file(conn: Connection, audit: Audit, report: bytes) -> Filed:
    """Write the record unless that period is filed already; return what stands."""
    period = audit.period
    body = [
        {
            "key": s.key,
            "title": s.title,
            "verdict": s.verdict.value,
            "sentence": s.sentence,
            "change": audit.change(s),
            "incident_id": s.incident_id,
        }
        for s in audit.sections
    ]
    values = {
        "model": audit.model,
        "kind": period.kind.value,
        "period": period.name,
        "since": period.since,
        "until": period.until,
        "at": audit.at,
        "verdict": audit.verdict.value,
        "sections": body,
        "report": report,
        "sha256": hashlib.sha256(report).hexdigest(),
    }
    conn.execute(insert(audits).values(**values).on_conflict_do_nothing())
    filed = of_period(conn, audit.model, period.kind, period.name)
    assert filed is not None  # the insert wrote it, or found it
    return filed


def of_period(conn: Connection, model: str, kind: Kind, period: str) -> Filed | None:
    row = conn.execute(select(*_SHOWN).where(audits.c.model == model, audits.c.kind == kind.value, audits.c.period == period)).one_or_none()
    return _filed(row) if row else None


def last_before(conn: Connection, model: str, kind: Kind, until: datetime) -> Filed | None:
    """The one to compare with: of a period that ended before `until`."""
    query = select(*_SHOWN).where(audits.c.model == model, audits.c.kind == kind.value, audits.c.until < until)
    row = conn.execute(query.order_by(audits.c.until.desc(), audits.c.id.desc()).limit(1)).one_or_none()
    return _filed(row) if row else None


def find(
    conn: Connection,
    *,
    model: str | None = None,
    verdict: Verdict | None = None,
    since: datetime | None = None,
    before: int | None = None,
    models: Sequence[str] = (),
    limit: int = 1000,
) -> list[Filed]:
    """The newest period first; `since`: whose period ended after it; those that come after the audit `before`. `models`: patterns, of a
    limited token."""
    query = select(*_SHOWN).order_by(audits.c.until.desc(), audits.c.id.desc()).limit(limit)
    if model:
        query = query.where(audits.c.model == model)
    if verdict is not None:
        query = query.where(audits.c.verdict == verdict.value)
    if since:
        query = query.where(audits.c.until > since)
    if models:
        query = query.where(seen(audits.c.model, models))
    if before is not None:
        query = query.where(tuple_(audits.c.until, audits.c.id) < (_ended(conn, before), before))
    return [_filed(row) for row in conn.execute(query)]


def newest(conn: Connection) -> dict[str, Filed]:
    """The last audit of each model."""
    query = select(*_SHOWN).distinct(audits.c.model).order_by(audits.c.model, audits.c.until.desc(), audits.c.id.desc())
    return {row.model: _filed(row) for row in conn.execute(query)}


def get(conn: Connection, audit_id: int) -> Filed:
    row = conn.execute(select(*_SHOWN).where(audits.c.id == audit_id)).one_or_none()
    if row is None:
        raise NotFound(f"there is no audit {audit_id}; list them with `mlrunbook audit list`")
    return _filed(row)


def report(conn: Connection, audit_id: int) -> bytes:
    return bytes(_one(conn, audit_id, audits.c.report))


def _ended(conn: Connection, audit_id: int) -> datetime:
    ended: datetime = _one(conn, audit_id, audits.c.until)
    return ended


def _one(conn: Connection, audit_id: int, column: Column[Any]) -> Any:
    found = conn.execute(select(column).where(audits.c.id == audit_id)).scalar_one_or_none()
    if found is None:
        raise NotFound(f"there is no audit {audit_id}; list them with `mlrunbook audit list`")
    return found


def model_of(conn: Connection, audit_id: int) -> str:
    model: str | None = conn.execute(select(audits.c.model).where(audits.c.id == audit_id)).scalar_one_or_none()
    if model is None:
        raise NotFound(f"there is no audit {audit_id}; list them with `mlrunbook audit list`")
    return model


def note_drill(conn: Connection, drill: Drill) -> None:
    """The same drill again adds nothing."""
    conn.execute(insert(drills).values(held_at=drill.held_at, what=drill.what, result=drill.result).on_conflict_do_nothing())


def drills_held(conn: Connection, *, since: datetime) -> list[Drill]:
    """Newest first."""
    query = select(drills.c.held_at, drills.c.what, drills.c.result).where(drills.c.held_at >= since)
    return [Drill(*row) for row in conn.execute(query.order_by(drills.c.held_at.desc()))]


def _filed(row: Row[Any]) -> Filed:
    values = dict(row._mapping)
    return Filed(**{**values, "kind": Kind(values["kind"]), "verdict": Verdict(values["verdict"])})
