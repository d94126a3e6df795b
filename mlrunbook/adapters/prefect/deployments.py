"""The work pool and the deployments of prefect.yaml, on a Prefect server that runs."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from mlrunbook.domain.errors import Invalid, Refused, Transient

POOL = "mlrunbook"
_OPTIONAL_TEXT = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
# Prefect's own template of the process type with another default `command`: the one it makes itself costs 2 s more per run.
_BASE_JOB_TEMPLATE: dict[str, Any] = {
    "job_configuration": {key: "{{ " + key + " }}" for key in ("command", "env", "labels", "name", "stream_output", "working_dir")},
    "variables": {
        "type": "object",
        "properties": {
            "name": _OPTIONAL_TEXT | {"title": "Name"},
            "env": {"type": "object", "title": "Environment Variables", "additionalProperties": {"type": "string"}},
            "labels": {"type": "object", "title": "Labels", "additionalProperties": {"type": "string"}},
            "command": {"type": "string", "title": "Command", "default": "python -m prefect.engine"},
            "stream_output": {"type": "boolean", "title": "Stream Output", "default": True},
            "working_dir": _OPTIONAL_TEXT | {"title": "Working Directory"},
        },
    },
}


def prefect_client(api_url: str, auth: str | None) -> httpx.Client:
    """`auth` is "user:password", as in PREFECT_API_AUTH_STRING."""
    return httpx.Client(base_url=api_url.rstrip("/"), auth=basic(auth), timeout=10.0, trust_env=False)


def basic(auth: str | None) -> tuple[str, str] | None:
    user, _, password = (auth or "").partition(":")
    return (user, password) if auth else None


def ensure_pool(http: httpx.Client) -> None:
    """Create the process work pool, or bring its job template up to date. A pool of another type (kubernetes) is left as it is."""
    try:
        answer = http.post("/work_pools/", json={"name": POOL, "type": "process", "base_job_template": _BASE_JOB_TEMPLATE})
        if answer.status_code == 409 and http.get(f"/work_pools/{POOL}").json()["type"] != "process":
            return
        if answer.status_code == 409:
            answer = http.patch(f"/work_pools/{POOL}", json={"base_job_template": _BASE_JOB_TEMPLATE})
    except httpx.HTTPError as error:
        raise Transient(f"Prefect at {http.base_url} does not answer ({type(error).__name__}); is its server up?") from error
    if answer.status_code in (401, 403):
        raise Refused("Prefect refused our credentials; set PREFECT_API_AUTH_STRING to the server's")
    if answer.is_error:
        raise Refused(f"Prefect refused the work pool {POOL!r}: {answer.status_code} {answer.text[:200]}")


def worker_online(http: httpx.Client, *, since: datetime) -> bool:
    """Whether a worker has polled the pool after `since`: Prefect shows a killed one as online for a while."""
    seen = {"last_heartbeat_time": {"after_": since.isoformat()}}
    try:
        answer = http.post(f"/work_pools/{POOL}/workers/filter", json={"workers": seen})
        return answer.is_success and bool(answer.json())
    except httpx.HTTPError:
        return False


def deploy_command(home: Path) -> list[str]:
    """What registers every deployment of `home`/prefect.yaml; run it there. Invalid when there is no such file."""
    if not (home / "prefect.yaml").exists():
        raise Invalid(f"no prefect.yaml in {home}: run mlrunbook in its checkout, or set MLRUNBOOK_HOME to it", field="home")
    return [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
