"""What the monitor flow's rules remember between its runs: pending, firing, or about to clear, and since when."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert as upsert

from mlrunbook.domain.detection.alert_rules import RuleState
from mlrunbook.store.tables import rule_states


def read(conn: Connection, model: str) -> dict[str, RuleState]:
    """By the rules' keys; a rule that was never evaluated is missing."""
    rows = conn.execute(select(rule_states).where(rule_states.c.model == model))
    return {r.rule: RuleState(r.bad_since, r.firing_since, r.quiet_since) for r in rows}


def write(conn: Connection, model: str, states: Mapping[str, tuple[RuleState, str]], *, now: datetime) -> None:
    """Each rule's state and the sentence that explains it."""
    rows = [
        {
            "model": model,
            "rule": key,
            "bad_since": state.bad_since,
            "firing_since": state.firing_since,
            "quiet_since": state.quiet_since,
            "sentence": sentence,
            "evaluated_at": now,
        }
        for key, (state, sentence) in states.items()
    ]
    new = upsert(rule_states).values(rows)
    changed = {c.name: new.excluded[c.name] for c in rule_states.c if not c.primary_key}
    conn.execute(new.on_conflict_do_update(index_elements=["model", "rule"], set_=changed))
