"""Datadog monitor webhooks, with the payload of `deployments/receivers/datadog.json` (the body is the operator's own template).

Variables: docs.datadoghq.com/integrations/webhooks. `alert_cycle_key` stays the same from trigger to recovery: it is the identity.
"""

from __future__ import annotations

import re

from mlrunbook.domain.detection.alerts import fingerprint
from mlrunbook.domain.intake.facts import Facts, State
from mlrunbook.domain.intake.words import is_placeholder
from mlrunbook.gateway.webhooks.parsing import Format, Reading, Received, nothing_of, strings, tags, text, time

FIRING = ("triggered", "re-triggered", "no data", "re-no data", "warn", "re-warn", "renotify")
RESOLVED = ("recovered",)


def read(received: Received) -> list[Reading]:
    payload = received.payload
    if not isinstance(payload, dict):
        return nothing_of(received, "not a JSON object: this is no Datadog webhook")
    transition = text(payload.get("alert_transition")).lower()
    if transition not in FIRING + RESOLVED:
        return nothing_of(received, "`alert_transition` is none we know: use the payload of deployments/receivers/datadog.json")
    if text(payload.get("alert_title")).startswith("[TEST]"):
        return nothing_of(received, "a test notification: Datadog reaches this gateway, and there is nothing to do")
    said = tags(payload.get("tags")) | tags(payload.get("alert_scope"))
    fields = {name: value for name, value in strings(payload).items() if value and name not in said}
    title = re.sub(r"^(\[[^\]]*\]\s*)+", "", text(payload.get("alert_title")))
    missing, cycle = "no data" in transition, text(payload.get("alert_cycle_key"))
    cycle = "" if is_placeholder(cycle) else cycle
    facts = Facts(
        identity=cycle or fingerprint(text(payload.get("alert_id")), said),
        state=State.RESOLVED if transition in RESOLVED else State.FIRING,
        state_because=f"its alert_transition is {transition!r}",
        identified_by="alert_cycle_key" if cycle else "alert_id and tags",
        title=said.get("alertname") or title,
        said=fields | said,
        summary=f"{title} has no data" if missing else fields.get("alert_status") or title,
        levels=("warning",) if transition in ("warn", "re-warn") else (fields.get("alert_priority", ""), fields.get("alert_type", "")),
        unanswered=f"Datadog has no data for the monitor {title}" if missing else "",
        seen_at=time(payload.get("date")),
        kept={"annotations": fields},
    )
    return [Reading([facts])]


FORMAT = Format("datadog", read)
