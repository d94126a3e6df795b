"""The journal of changes to the world: one row a planned action, each step of it an event of the incident's chain.

Written by `mlrunbook.response.execution.execute` alone.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select, true, update
from sqlalchemy.dialects.postgresql import insert

from mlrunbook.domain.action_state import SENT, SETTLED, ActionState, may_have_happened
from mlrunbook.domain.actions import Action, Isolate, Plan, Scale
from mlrunbook.domain.incident import Status
from mlrunbook.store import row_events
from mlrunbook.store.tables import actions, approvals, incidents


@dataclass(frozen=True)
class Row:
    id: str
    incident_id: str
    plan_digest: str
    ordinal: int
    kind: str
    model: str
    target: Mapping[str, Any]
    summary: str
    approval_id: int
    generation: int
    state: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    attempts: int
    undo_of: str | None
    undone_by: str | None
    kept_because: str | None
    error: str | None
    intended_at: datetime
    done_at: datetime | None
    moved_s: float = 0.0

    @property
    def caveats(self) -> Sequence[str]:
        """What may keep the change from holding, as it was read back."""
        return tuple((self.after or {}).get("caveats", ()))

    @property
    def settled(self) -> bool:
        return self.state in SETTLED

    @property
    def may_have_happened(self) -> bool:
        """An intent alone changes nothing: whoever goes on with it checks everything anew."""
        return may_have_happened(self.state, self.attempts)

    @property
    def number(self) -> tuple[int, int]:
        """What is newer is told by the approval it rests on, never by a clock."""
        return self.approval_id, self.ordinal


@dataclass(frozen=True)
class Intent:
    """What a run is about to do: one action of a plan, the approval it rests on, the lease's generation, the state before."""

    plan: Plan
    ordinal: int
    approval_id: int
    generation: int
    before: Mapping[str, Any]
    undo_of: str | None = None

    @property
    def action(self) -> Action:
        return self.plan.actions[self.ordinal]


def intend(conn: Connection, intent: Intent, *, now: datetime) -> Row:
    """Write the intent with the state before; return the row that stands (an earlier attempt's `before` is kept, and it is ours now)."""
    incident_id, digest, action = intent.plan.incident_id, intent.plan.digest, intent.action
    action_id = f"{incident_id}:{digest[:12]}:{intent.ordinal}"
    row_events.add(
        conn,
        incident_id,
        insert(actions)
        .values(
            id=action_id,
            incident_id=incident_id,
            plan_digest=digest,
            ordinal=intent.ordinal,
            kind=action.kind,
            model=action.model,
            target=_json(action.target()),
            summary=action.summary,
            approval_id=intent.approval_id,
            generation=intent.generation,
            state=ActionState.INTENDED,
            before=_json(intent.before),
            undo_of=intent.undo_of,
            intended_at=now,
        )
        .on_conflict_do_update(
            index_elements=["id"], set_={"generation": intent.generation}, where=actions.c.state == ActionState.INTENDED
        ),
    )
    row = find(conn, incident_id, digest, intent.ordinal)
    if row is None:  # pragma: no cover - the insert above wrote it, or found it
        raise AssertionError(f"journal row {action_id} vanished")
    return row


def find(conn: Connection, incident_id: str, plan_digest: str, ordinal: int) -> Row | None:
    row = conn.execute(
        select(actions).where(actions.c.incident_id == incident_id, actions.c.plan_digest == plan_digest, actions.c.ordinal == ordinal)
    ).one_or_none()
    return Row(**row._mapping) if row else None


def mark(conn: Connection, row: Row, state: str, **values: Any) -> None:
    body = {k: _json(v) if k in ("before", "after") else v for k, v in values.items()}
    attempts = actions.c.attempts + 1 if state == ActionState.APPLYING else actions.c.attempts
    row_events.change(conn, update(actions).where(actions.c.id == row.id).values(state=state, attempts=attempts, **body))


def of_incident(conn: Connection, incident_id: str) -> list[Row]:
    rows = conn.execute(select(actions).where(actions.c.incident_id == incident_id).order_by(actions.c.intended_at, actions.c.ordinal))
    return [Row(**r._mapping) for r in rows]


def of_incidents(conn: Connection, incident_ids: Collection[str]) -> list[Row]:
    query = select(actions).where(actions.c.incident_id.in_(incident_ids)).order_by(actions.c.intended_at, actions.c.ordinal)
    return [Row(**r._mapping) for r in conn.execute(query)] if incident_ids else []


def of_model(conn: Connection, model: str, *, since: datetime) -> list[Row]:
    """What was changed about the model since then, by any incident, also what may have been."""
    query = select(actions).where(actions.c.model == model, actions.c.intended_at >= since, actions.c.state.in_(SENT))
    return [Row(**r._mapping) for r in conn.execute(query.order_by(actions.c.intended_at, actions.c.ordinal))]


def set_undone(conn: Connection, action_id: str, by: str) -> None:
    row_events.change(conn, update(actions).where(actions.c.id == action_id).values(undone_by=by))


def taken_back_with(conn: Connection, undo: Row) -> list[Row]:
    """Earlier changes of the same thing, which `undo` has settled too: several stops, or routes, are taken back as one."""
    rows = [r for r in of_incident(conn, undo.incident_id) if r.kind == undo.kind and r.number <= undo.number]
    return [r for r in rows if r.undone_by is None and r.undo_of is None and set(r.target) <= set(undo.target)]


def values_of(conn: Connection, incident_id: str, kind: str, key: str) -> list[Any]:
    """Every value that this incident found or set under one key of such a target."""
    rows = [r for r in of_incident(conn, incident_id) if r.kind == kind and key in r.target]
    return [value for r in rows for value in ((r.before or {}).get(key), r.target[key])]


def isolating(conn: Connection, model: str) -> str | None:
    """The open incident that has isolated the model's server or is about to: an isolation that has begun and was not lifted."""
    query = (
        select(actions.c.incident_id)
        .join(incidents, incidents.c.id == actions.c.incident_id)
        .where(actions.c.model == model, actions.c.kind == Isolate.kind, actions.c.undone_by.is_(None))
        .where(actions.c.target["isolated"].as_boolean(), actions.c.state != ActionState.REFUSED)
        .where(incidents.c.status.not_in(["closed", "false_alarm"]))
        .order_by(actions.c.intended_at.desc())
        .limit(1)
    )
    return conn.execute(query).scalar_one_or_none()


def last_replicas(conn: Connection, model: str) -> int | None:
    """The newest number of servers on record, of any incident of the model, that was not 0."""
    rows = conn.execute(
        select(actions.c.before, actions.c.after)
        .where(actions.c.model == model, actions.c.kind == Scale.kind)
        .order_by(actions.c.intended_at.desc())
        .limit(50)
    )
    seen = [(body or {}).get("replicas") for row in rows for body in (row.after, row.before)]
    return next((n for n in seen if isinstance(n, int) and n > 0), None)


def versions(conn: Connection, model: str) -> list[str]:
    """Versions of the model that changes of any incident found or set, the newest first."""
    wanted = select(actions.c.before, actions.c.target).where(actions.c.model == model).order_by(actions.c.intended_at.desc()).limit(50)
    keys = ("version", "target_version", "serving_version", "serves")
    found = [(body or {}).get(key) for row in conn.execute(wanted) for body in (row.target, row.before) for key in keys]
    return [value for value in dict.fromkeys(found) if isinstance(value, str) and value]


def set_kept(conn: Connection, action_id: str, because: str) -> None:
    row_events.change(conn, update(actions).where(actions.c.id == action_id).values(kept_because=because))


def other_incident_acting(conn: Connection, incident_id: str, model: str, *, kinds: Sequence[str] = ()) -> str | None:
    """An open incident other than this one with an unfinished change (of these kinds) to the same model; an unknown one is in a person's
    hands, and what a run that is gone has only intended was never sent.

    Holds the model's lock to the end of the transaction: of two that ask at the same moment the second sees what the first intends.
    """
    conn.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(model, 0))))
    return conn.execute(
        select(actions.c.incident_id)
        .join(incidents, incidents.c.id == actions.c.incident_id)
        .where(actions.c.model == model, actions.c.incident_id != incident_id)
        .where(
            (actions.c.state == ActionState.APPLYING)
            | ((actions.c.state == ActionState.INTENDED) & (actions.c.generation >= incidents.c.generation))
        )
        .where(incidents.c.status.not_in(["closed", "false_alarm"]), actions.c.kind.in_(kinds) if kinds else true())
        .limit(1)
    ).scalar_one_or_none()


def automatic_in_last_hour(conn: Connection, model: str, *, now: datetime) -> int:
    """Changes to the model in the last hour that rested on a policy rule rather than on a human. One that a clock has dated in the future
    counts, and one counts an hour although the clock was set forward since: rather too long than not."""
    return conn.execute(
        select(func.count())
        .select_from(actions.join(approvals, approvals.c.id == actions.c.approval_id))
        .where(actions.c.model == model, approvals.c.door == "policy_rule", actions.c.state == ActionState.DONE)
        .where(_done_on_this_clock() > now - timedelta(hours=1))
    ).scalar_one()


def clock_set_forward(conn: Connection, by_s: float, *, now: datetime) -> None:
    """The last hour stays the last hour, for the limit of automatic changes."""
    recent = _done_on_this_clock() > now - timedelta(hours=1, seconds=by_s)
    row_events.change(conn, update(actions).where(recent).values(moved_s=actions.c.moved_s + by_s))


def _done_on_this_clock() -> ColumnElement[datetime]:
    return actions.c.done_at + func.make_interval(0, 0, 0, 0, 0, 0, actions.c.moved_s)


def unknown_of_open(conn: Connection) -> int:
    """How many changes of open incidents may or may not have happened."""
    closed = [status.value for status in Status if not status.is_open]
    joined = select(func.count()).select_from(actions.join(incidents, actions.c.incident_id == incidents.c.id))
    return int(conn.execute(joined.where(actions.c.state == ActionState.UNKNOWN, incidents.c.status.not_in(closed))).scalar_one())


def _json(value: Any) -> Any:
    return json.loads(json.dumps(value, default=str))


def isolations(conn: Connection, incident_id: str) -> list[Row]:
    """What of this incident cuts the model server off and was not taken back, oldest first."""
    rows = of_incident(conn, incident_id)
    return [r for r in rows if r.kind == Isolate.kind and r.target["isolated"] and r.state in SETTLED and r.undone_by is None]
