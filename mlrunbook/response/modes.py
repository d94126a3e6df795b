"""Changes of mode are on record: noticed when a gateway or a run reads the policy, and explained by the person who made them."""

from __future__ import annotations

import hashlib
from datetime import datetime

from sqlalchemy import Connection

from mlrunbook.domain.errors import Invalid, NotFound
from mlrunbook.domain.policy.modes import Mode
from mlrunbook.domain.policy.patterns import fitting
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.store import mode_changes
from mlrunbook.store.mode_changes import ModeChange

ALL = "*"


def note(conn: Connection, policy: Policy, *, now: datetime) -> None:
    """Put down what is another mode than was seen last; an entry that is gone is what all others are."""
    modes = {ALL: policy.mode} | {name: rules.mode for name, rules in policy.models.items() if rules.mode is not None and name != ALL}
    if (star := policy.models.get(ALL)) and star.mode is not None:
        modes[ALL] = star.mode
    if not _differing(mode_changes.newest(conn), modes):
        return
    mode_changes.lock(conn)
    known = mode_changes.newest(conn)
    digest = hashlib.sha256(policy.model_dump_json().encode()).hexdigest()
    for name, mode in _differing(known, modes).items():
        mode_changes.add(conn, name, known.get(name), mode, policy=digest, now=now)


def _differing(known: dict[str, Mode], modes: dict[str, Mode]) -> dict[str, Mode]:
    """Nothing on record is mode act for all."""
    everything = {name: modes.get(name, modes[ALL]) for name in {*known, *modes}}
    return {name: mode for name, mode in sorted(everything.items()) if known.get(name, Mode.ACT if name == ALL else None) is not mode}


def changes(conn: Connection, *, model: str | None, limit: int) -> list[ModeChange]:
    return mode_changes.find(conn, model=model, limit=limit)


def last_change(conn: Connection, policy: Policy, model: str) -> ModeChange | None:
    """Of the entry of policy that the model's mode comes from; None: it was never another."""
    entry = next((name for name in fitting(model, policy.models) if policy.models[name].mode is not None), ALL)
    return next(iter(mode_changes.find(conn, model=entry, limit=1)), None)


def explain(conn: Connection, model: str, *, by: str, why: str, now: datetime) -> ModeChange:
    """The newest change of this model, or pattern. What was explained once stays."""
    found = mode_changes.find(conn, model=model, limit=1)
    if not found:
        raise NotFound(f"no change of mode of {model[:100]} is on record; see `mlrunbook mode list`")
    if found[0].by is not None:
        raise Invalid(f"{found[0].by} has said why {model} is in mode {found[0].mode}: {found[0].why}", field="reason")
    return mode_changes.explain(conn, found[0].id, by=by, why=why, now=now)
