"""What the payload of an outbox row must hold for its handler, by kind. A row that does not is set aside, whoever wrote it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from mlrunbook.domain.incident import ClockName
from mlrunbook.domain.roles import Role
from mlrunbook.response.communication import regulatory_clocks
from mlrunbook.response.lifecycle import flapping, post_close_check
from mlrunbook.response.review import action_items, reminders
from mlrunbook.store.outbox import EXPIRY, ORDER_OVERDUE, RESPONSE, SETTLE, SILENCE_ENDS, UPDATE, Item


def _text(value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError


def _name(value: Any) -> None:
    _text(value)
    if not value.strip():
        raise ValueError


def _number(value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError


def _moment(value: Any) -> None:
    if datetime.fromisoformat(value).tzinfo is None:
        raise ValueError


def _one_of(*allowed: str) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if value not in allowed:
            raise ValueError

    return check


FIELDS: Mapping[str, Mapping[str, Callable[[Any], object]]] = {
    "page": {"role": Role, "to": _text, "reason": _text, "channel": _name},
    "message": {"channel": _name, "to": _text, "subject": _text, "body": _text},
    SETTLE: {"channel": _name, "action": _one_of("acknowledge", "resolve")},
    "start_run": {"generation": _number, "why": _text},
    "resume_run": {"why": _text},
    RESPONSE: {"deadline": _moment},
    UPDATE: {"number": _number},
    EXPIRY: {"digest": _name, "round": _number},
    ORDER_OVERDUE: {"digest": _name},
    regulatory_clocks.TIMER: {"clock": ClockName, "deadline": _moment, "channel": _name},
    flapping.TIMER: {"quiet_at": _moment},
    SILENCE_ENDS: {"until": _moment},
    reminders.TIMER: {"due": _moment, "at": _moment},
    post_close_check.TIMER: {"since": _moment, "closed_at": _moment},
    action_items.TIMER: {"item": _number},
}


def unreadable(item: Item) -> str | None:
    """Why its handler cannot use it; None when it can."""
    if not isinstance(item.payload, dict):
        return "its payload is no object"
    for name, check in FIELDS[item.kind].items():
        try:
            check(item.payload[name])
        except KeyError:
            return f"its payload has no {name}"
        except (ValueError, TypeError):
            return f"{name} of its payload cannot be read"
    return None
