"""What follows when a channel is dead, and what a paging service is told of pages that went out. The dispatcher asks.

A page is never given up: its own channel is tried again for ever, and meanwhile another one carries it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import Connection

from mlrunbook.domain.errors import Refused
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.roles import Role
from mlrunbook.response.communication.notifications import Page, request_action
from mlrunbook.store import incidents, outbox, timeline

ACTOR = "dispatcher"


def note_failure(
    conn: Connection, policy: Policy, item: outbox.Item, error: Exception, *, has_address: Callable[[str], bool], now: datetime
) -> None:
    """The first failure is said on the timeline; one that lasts, or an address that is wrong, brings the next channel in."""
    if item.incident_id is None or item.kind not in ("page", "message"):
        return
    channel = str(item.payload.get("channel"))
    if item.attempts == 1:
        _say(conn, item.incident_id, f"Not delivered yet to {channel}, will be retried: {error}", now=now)
    limit = 1 if isinstance(error, Refused) else policy.communication.fallback_after_attempts
    if item.attempts != limit:
        return
    if item.kind == "page":
        _page_by_another(conn, policy, item, channel, has_address=has_address, now=now)
    else:
        why = f"the channel {channel} does not take messages; {item.payload.get('to')} must be told by hand: {item.payload.get('subject')}"
        step = f"Tell them, and look at the address and the service of the channel {channel}"
        incident = incidents.get(conn, item.incident_id, lock=True)
        request_action(conn, policy, incident, Page(Role.ONCALL_ML_ENGINEER, why, f"dead-channel:{channel}", step), now=now)


def note_that_nobody_was_called(
    conn: Connection, policy: Policy, item: outbox.Item, *, has_address: Callable[[str], bool], now: datetime
) -> None:
    """A page went to a channel of the model's own that has no address, so it is only a file: it goes out as for other models too."""
    channel = str(item.payload["channel"])
    if item.payload.get("role") not in set(Role):  # such a page went out without details
        return
    role = Role(item.payload["role"])
    usual = [*policy.of_all.escalation.of(role).channels, *policy.of_all.communication.fallback_channels]
    if has_address(channel) or channel in usual:
        return
    incident_id, base = str(item.incident_id), _base(item.dedup_key)
    carried = _carried(conn, incident_id, base)
    own = policy.for_model(incidents.get(conn, incident_id).model).escalation.of(role).channels
    if any(has_address(name) for name in {*carried, *own}):
        return
    if other := next((name for name in usual if has_address(name)), None):
        payload = {**item.payload, "channel": other, "reason": f"{item.payload['reason']} (the channel {channel} has no address)"}
        outbox.put(conn, "page", f"{base}:{other}", payload, now=now, incident_id=incident_id)
        _say(conn, incident_id, f"{channel} has no address and calls nobody: {role.words} is paged by {other} too", now=now)


def _carried(conn: Connection, incident_id: str, base: str) -> set[str]:
    """The channels that carry this page."""
    return {str(r["payload"].get("channel")) for r in outbox.of_incident(conn, incident_id, "page") if _base(r["dedup_key"]) == base}


def _page_by_another(
    conn: Connection, policy: Policy, item: outbox.Item, channel: str, *, has_address: Callable[[str], bool], now: datetime
) -> None:
    """By the next channel of the role, then by those of the policy: the first that does not carry this page yet and reaches anybody."""
    incident_id, base = str(item.incident_id), _base(item.dedup_key)
    carried = _carried(conn, incident_id, base)
    role, policy = Role(item.payload["role"]), policy.for_model(incidents.get(conn, incident_id).model)
    wanted = dict.fromkeys([*policy.escalation.of(role).channels, *policy.communication.fallback_channels])
    free = [name for name in wanted if name not in carried]
    other = next((name for name in free if has_address(name)), free[0] if free else None)
    incidents.get(conn, incident_id, lock=True)
    if other is None:
        _say(conn, incident_id, f"{channel} has failed {item.attempts} times and no other channel is left for {role.words}", now=now)
        return
    payload = {**item.payload, "channel": other, "reason": f"{item.payload['reason']} (the channel {channel} does not take pages)"}
    outbox.put(conn, "page", f"{base}:{other}", payload, now=now, incident_id=incident_id)
    times = "once" if item.attempts == 1 else f"{item.attempts} times"
    nobody = "" if has_address(other) else ", which has no address: a file that calls nobody"
    _say(conn, incident_id, f"{channel} has failed {times}: {role.words} is paged by {other} instead{nobody}", now=now)


def _base(dedup_key: str) -> str:
    return dedup_key.rpartition(":")[0]


def _say(conn: Connection, incident_id: str, words: str, *, now: datetime) -> None:
    timeline.append(conn, incident_id, "delivery", words, actor=ACTOR, at=now)
