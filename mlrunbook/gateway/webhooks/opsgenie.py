"""Opsgenie outgoing webhooks (integration "Webhook"): created, acknowledged, closed, noted.

Fields: docs.opsgenie.com, webhook integration and alert action data. Opsgenie signs nothing: it sends a header that it is given.
"""

from __future__ import annotations

from mlrunbook.domain.intake.facts import Facts, State
from mlrunbook.gateway.webhooks.parsing import (
    ExternalNote,
    Format,
    Reading,
    Received,
    nothing_of,
    own_incident,
    person,
    person_in,
    strings,
    tags,
    text,
    time,
    within,
)

FIRING = ("create", "acknowledge", "unacknowledge", "escalate", "addtags", "updatedetails", "updatepriority", "updatemessage")
RESOLVED = ("close", "delete")
UPDATES = ("addtags", "updatedetails", "updatepriority", "updatemessage")


def read(received: Received) -> list[Reading]:
    alert = within(received.payload, "alert")
    action = text(within(received.payload, "action")).lower()
    identity = text(within(alert, "alertId"))
    if not isinstance(alert, dict) or not action or not identity:
        return nothing_of(received, "not an Opsgenie webhook: it has `action` and `alert.alertId`")
    by = person(alert.get("username"), otherwise="Opsgenie")
    key = f"{identity}:{action}:{text(alert.get('updatedAt'))}"
    own = own_incident(text(alert.get("alias")))
    words = []
    if action == "acknowledge":
        who = person_in("Opsgenie", alert.get("username"))
        words = [ExternalNote("acknowledged", who, "", key, own, identity)]
    elif action == "addnote":
        words = [ExternalNote("note", by, f"{by} noted in Opsgenie: {text(alert.get('note'), 1000)}", key, own, identity)]
    elif own and action in RESOLVED:
        words = [ExternalNote("note", by, f"{by} closed the alert in Opsgenie", key, own, identity)]
    if own or action not in FIRING + RESOLVED:  # an alert that we sent ourselves opens nothing
        why = "it is about a page of ours" if own else f"Opsgenie's action {action} neither opens nor ends anything"
        return [Reading(words=words, passed_over=why)]
    said = tags(alert.get("tags")) | strings(alert.get("details"))
    fields = {name: value for name, value in strings(alert).items() if value and name not in said}
    facts = Facts(
        identity=identity,
        state=State.RESOLVED if action in RESOLVED else State.FIRING,
        state_because=f"its action is {action!r}",
        identified_by="alertId",
        title=said.get("alertname") or text(alert.get("message")),
        said=fields | said,
        summary=text(alert.get("message")),
        starts_at=time(alert.get("createdAt")),
        is_update=action in UPDATES,
        kept={"annotations": fields},
    )
    return [Reading([facts], words=words)]


FORMAT = Format("opsgenie", read)
