"""Events of PagerDuty's Events API v2, as anything that can page PagerDuty sends them.

Fields: PagerDuty/developer-docs docs/events-API-v2/01 and 02. The routing key in them is a secret: nothing here keeps it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlrunbook.domain.detection.alerts import fingerprint
from mlrunbook.domain.intake.facts import Facts, State
from mlrunbook.gateway.webhooks.parsing import ExternalNote, Reading, Received, Unusable, own_incident, person, strings, text, time, within

STATES = {"trigger": State.FIRING, "acknowledge": State.FIRING, "resolve": State.RESOLVED}
SEVERITIES = ("critical", "error", "warning", "info")
NEEDED = ("summary", "source", "severity")
MAX_KEY = 255
SECRETS = ("routing_key", "service_key")
MAX_LINKS = 20
# How Alertmanager and Grafana write the labels of a group into one text: each alert a list of " - name = value" under "Labels:".
_LABELS = re.compile(r"^Labels:\s*$(?P<lines>(?:\n\s*-\s.*)*)", re.MULTILINE)
_LABEL = re.compile(r"^\s*-\s*(?P<name>[A-Za-z_]\w*)\s*=\s*(?P<value>.*?)\s*$", re.MULTILINE)


def public(sent: Mapping[str, Any]) -> dict[str, Any]:
    """What may be kept of it."""
    return {name: value for name, value in sent.items() if name not in SECRETS}


def dedup_key(sent: Mapping[str, Any]) -> str:
    """The sender's; of an event without one what stays the same when it is sent again, so that a repeat is one."""
    if given := text(sent.get("dedup_key")):
        return given
    said = strings(sent.get("payload"))
    return fingerprint(*(said.get(name, "") for name in ("source", "summary", "component", "group", "class"))) if said else ""


def faults(sent: Any) -> list[str]:
    """What PagerDuty would refuse it for."""
    if not isinstance(sent, dict):
        return ["the event is no JSON object"]
    found, action, key = list[str](), sent.get("event_action"), sent.get("dedup_key")
    if not isinstance(action, str) or action not in STATES:
        found.append(f"'event_action' must be one of {', '.join(STATES)}")
    if key is not None and (not isinstance(key, str) or len(key) > MAX_KEY):
        found.append(f"'dedup_key' must be a text of {MAX_KEY} characters at most")
    if action in ("acknowledge", "resolve") and not key:
        found.append("'dedup_key' is missing or blank")
    if action == "trigger":
        found += _faults_of_payload(sent.get("payload"))
    return found


def _faults_of_payload(said: Any) -> Iterator[str]:
    if not isinstance(said, dict):
        yield "'payload' is missing or blank"
        return
    for name in NEEDED:
        if not text(said.get(name)):
            yield f"'payload.{name}' is missing or blank"
    if text(said.get("severity")) and said["severity"] not in SEVERITIES:
        yield f"'payload.severity' must be one of {', '.join(SEVERITIES)}"


def read(received: Received, sent: Mapping[str, Any]) -> list[Reading]:
    """One event. What came back from a page of our own opens nothing."""
    action, said, kept = text(sent.get("event_action")), sent.get("payload"), public(sent)
    state, identity = STATES.get(action), dedup_key(sent)
    if state is None or not (isinstance(said, dict) or identity):
        why = "an event of PagerDuty's Events API has `event_action` (trigger, acknowledge, resolve) and `payload`"
        return [Reading(unusable=[Unusable(kept, why)])]
    own = own_incident(identity)
    words = [_acknowledged(sent, identity, own)] if action == "acknowledge" else []
    if own or (action == "acknowledge" and not said):
        return [Reading(words=words, passed_over="" if words else "it is about a page of ours", part=kept)]
    return [Reading([_facts(sent, identity, state)], words=words, part=kept)]


def _acknowledged(sent: Mapping[str, Any], identity: str, own: str | None) -> ExternalNote:
    by = person(sent.get("client") or within(sent, "payload", "source"))
    return ExternalNote("acknowledged", by, "", f"pagerduty-event:{identity}"[:300], own, identity)


def _facts(sent: Mapping[str, Any], identity: str, state: State) -> Facts:
    said, details = sent.get("payload"), within(sent, "payload", "custom_details")
    fields = {name: value for name, value in strings(said).items() if value} | _labels(details) | strings(details)
    return Facts(
        identity=identity,
        state=state,
        state_because=f"its event_action is {text(sent.get('event_action'))!r}",
        identified_by="dedup_key" if text(sent.get("dedup_key")) else "source and summary",
        title=fields.get("class") or fields.get("summary", ""),
        said=fields,
        summary=fields.get("summary", ""),
        levels=(fields.get("severity", ""),),
        seen_at=time(within(said, "timestamp")),
        kept={"annotations": _annotations(sent)},
    )


def _labels(details: Any) -> dict[str, str]:
    """Those that all alerts of a group share, of the text that Alertmanager or Grafana makes of them."""
    given = [one for name in ("firing", "resolved") if isinstance(one := within(details, name), str)]
    values: dict[str, set[str]] = {}
    for found in (one for part in given for one in _LABELS.finditer(part)):
        for label in _LABEL.finditer(found["lines"]):
            values.setdefault(text(label["name"]), set()).add(text(label["value"]))
    return {name: one.pop() for name, one in values.items() if len(one) == 1}


def _annotations(sent: Mapping[str, Any]) -> dict[str, str]:
    """Who sent it, and what there is to look at."""
    found = {name: text(sent.get(name)) for name in ("client", "client_url")}
    for kind, address, words in (("links", "href", "text"), ("images", "src", "alt")):
        listed = sent.get(kind)
        for n, one in enumerate(listed[:MAX_LINKS] if isinstance(listed, list) else [], 1):
            if where := text(within(one, address)):
                found[f"{kind.removesuffix('s')}_{n}"] = f"{text(within(one, words))} {where}".strip()
    return {name: value for name, value in found.items() if value}
