"""Every alert format the gateway takes, by the name of its webhook."""

from __future__ import annotations

from mlrunbook.domain.errors import NotFound
from mlrunbook.gateway import alertmanager, cloudevents, datadog, generic, grafana, mlflow, opsgenie, pagerduty
from mlrunbook.gateway.reading import Format

_MODULES = (alertmanager, grafana, datadog, pagerduty, opsgenie, cloudevents, mlflow, generic)
FORMATS: dict[str, Format] = {one.FORMAT.name: one.FORMAT for one in _MODULES}


def of(name: str) -> Format:
    if name not in FORMATS:
        raise NotFound(f"there is no format {name[:50]}; known are {', '.join(FORMATS)}")
    return FORMATS[name]
