"""Step 6, action items: from the review until they are done, with reminders to whoever owns them."""

from __future__ import annotations

from datetime import UTC, datetime, time

from sqlalchemy import Connection

from mlrunbook.domain.errors import Refused
from mlrunbook.domain.incident import ItemStatus
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.review import action_items
from mlrunbook.domain.review.action_items import Item
from mlrunbook.domain.review.review import ActionItem
from mlrunbook.response.communication.notifications import INCIDENTS, TICKETS, send_message
from mlrunbook.store import action_items as items
from mlrunbook.store import incidents, outbox, timeline

TIMER = "action_item"


def add(conn: Connection, policy: Policy, incident_id: str, todo: ActionItem, *, by: str, now: datetime) -> Item:
    """A new item of this incident, due at the end of that day (UTC). Refused when it stands there already."""
    incidents.get(conn, incident_id, lock=True)
    item = items.add(conn, incident_id, todo.action, owner_role=todo.owner, due_at=datetime.combine(todo.due_on, time(23, 59), UTC))
    if item is None:
        raise Refused(f"{incident_id} has this action item already: see `mlrunbook actions list`")
    _plan_next(conn, policy, item, now=now)
    words = f"Action item {item.id}, due {todo.due_on}: {todo.action}"
    timeline.append(conn, incident_id, "todo", words, actor=by, at=now, data={"item": item.id, "owner": todo.owner})
    return item


def add_drafted(conn: Connection, policy: Policy, incident_id: str, todo: ActionItem, *, by: str, now: datetime) -> None:
    """The same for what the draft proposes: one that is there already, from before a reopening, stays."""
    if not any(item.action == todo.action for item in items.of_incident(conn, incident_id)):
        add(conn, policy, incident_id, todo, by=by, now=now)


def move(conn: Connection, policy: Policy, item_id: int, to: ItemStatus, *, by: str, note: str, now: datetime) -> Item:
    """Say how it stands. What ends it ends its reminders; saying the same again writes nothing."""
    incidents.get(conn, items.get(conn, item_id).incident_id, lock=True)
    before = items.get(conn, item_id, lock=True)
    item = action_items.moved(before, to, by=by, note=note, at=now)
    if (before.status, before.note) == (item.status, item.note):
        return before
    items.save(conn, item)
    words = f"Action item {item.id} is {item.status}: {item.action}" + (f" ({item.note})" if item.note else "")
    timeline.append(conn, item.incident_id, "todo", words, actor=by, at=now, data={"item": item.id, "status": item.status})
    outbox.cancel(conn, now=now, incident_id=item.incident_id, key_prefix=_key(item))
    _plan_next(conn, policy, item, now=now)
    return item


def remind(conn: Connection, policy: Policy, due: outbox.Item, *, now: datetime) -> None:
    """Put the reminder and plan the next one. Of what is overdue the incident channel hears too."""
    incident = incidents.get(conn, str(due.incident_id), lock=True)
    item = items.get(conn, int(due.payload["item"]))
    if item.status.is_open:
        text = action_items.action_item_reminder(item, now)
        send_message(conn, policy, incident, TICKETS, text, key=due.dedup_key, now=now)
        if item.is_overdue(now):
            send_message(conn, policy, incident, INCIDENTS, text, key=due.dedup_key, now=now)
        _plan_next(conn, policy, item, now=now)


def _plan_next(conn: Connection, policy: Policy, item: Item, *, now: datetime) -> None:
    at = action_items.next_reminder(item, now, policy.communication)
    if at is not None:
        key = f"{_key(item)}{at.isoformat()}:{len(outbox.of_incident(conn, item.incident_id, TIMER))}"
        outbox.put(conn, TIMER, key, {"item": item.id}, now=now, incident_id=item.incident_id, at=at)


def _key(item: Item) -> str:
    return f"action-item:{item.incident_id}:{item.id}:"
