"""Every alert format the gateway takes: the webhooks by name, and mail."""

from __future__ import annotations

from mlrunbook.domain.errors import NotFound
from mlrunbook.gateway.webhooks import alertmanager, cloudevents, datadog, generic, grafana, mail, mlflow, opsgenie, pagerduty
from mlrunbook.gateway.webhooks.parsing import Format

_MODULES = (alertmanager, grafana, datadog, pagerduty, opsgenie, cloudevents, mlflow, generic)
FORMATS: dict[str, Format] = {one.FORMAT.name: one.FORMAT for one in _MODULES}
# What a token may be limited to post: a format, mail, or one of the two doors of the REST API.
SENDERS = (*FORMATS, mail.FORMAT.name, "report", "changes")


def of(name: str) -> Format:
    """Also mail, which has a door of its own, and `generic/<mapping>`."""
    if name.startswith("generic/"):
        return generic.format_of(name.removeprefix("generic/"))
    known = FORMATS | {mail.FORMAT.name: mail.FORMAT}
    if name not in known:
        raise NotFound(f"there is no format {name[:50]}; known are {', '.join(known)}")
    return known[name]
