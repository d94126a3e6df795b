"""The work pool and the deployments of prefect.yaml, on a Prefect server that runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from mlrunbook.domain.errors import Invalid, Refused, Transient

POOL = "mlrunbook"
FLOW_PROCESS = ("-m", "mlrunbook.adapters.prefect.flow_process")
# Everything is fixed and nothing is a variable: who starts a run has no say in what is run. Our worker looks at none of it; it is for a
# worker of Prefect's own on this pool, and makes the server refuse a run that sets job variables.
BASE_JOB_TEMPLATE: dict[str, Any] = {
    "job_configuration": {
        "command": " ".join(("python", *FLOW_PROCESS)),
        "env": {},
        "labels": {},
        "name": None,
        "stream_output": True,
        "working_dir": None,
    },
    "variables": {"type": "object", "properties": {}, "additionalProperties": False},
}


@dataclass(frozen=True)
class Queue:
    """A lower `priority` number starts first."""

    name: str
    priority: int
    limit: int | None


CRITICAL, INCIDENTS, ROUTINE = "critical", "incidents", "default"  # `default` takes whatever names no queue: audits, monitoring, drills
ROUTINE_AT_ONCE = 1


def queues(runs_at_once: int) -> tuple[Queue, ...]:
    """The lower queues together leave one place that only a critical incident takes.

    >>> [(queue.name, queue.limit) for queue in queues(4)]
    [('critical', None), ('incidents', 2), ('default', 1)]
    """
    return (
        Queue(CRITICAL, 1, None),
        Queue(INCIDENTS, 2, runs_at_once - ROUTINE_AT_ONCE - 1),
        Queue(ROUTINE, 3, ROUTINE_AT_ONCE),
    )


def prefect_client(api_url: str, auth: str | None) -> httpx.Client:
    """`auth` is "user:password", as in PREFECT_API_AUTH_STRING."""
    return httpx.Client(base_url=api_url.rstrip("/"), auth=basic(auth), timeout=10.0, trust_env=False)


def basic(auth: str | None) -> tuple[str, str] | None:
    user, _, password = (auth or "").partition(":")
    return (user, password) if auth else None


def ensure_pool(http: httpx.Client, runs_at_once: int) -> None:
    """The work pool with its limit, its queues and its job template. A pool of another type (kubernetes) keeps its template."""
    limit, template = {"concurrency_limit": runs_at_once}, {"base_job_template": BASE_JOB_TEMPLATE}
    try:
        answer = http.post("/work_pools/", json={"name": POOL, "type": "process"} | limit | template)
        if answer.status_code == 409:
            is_ours = http.get(f"/work_pools/{POOL}").json()["type"] == "process"
            answer = http.patch(f"/work_pools/{POOL}", json=limit | template if is_ours else limit)
        _accepted(answer, f"the work pool {POOL!r}")
        for queue in queues(runs_at_once):
            values = {"priority": queue.priority, "concurrency_limit": queue.limit}
            answer = http.post(f"/work_pools/{POOL}/queues", json={"name": queue.name} | values)
            if answer.status_code == 409:
                answer = http.patch(f"/work_pools/{POOL}/queues/{queue.name}", json=values)
            _accepted(answer, f"the work queue {queue.name!r}")
    except httpx.HTTPError as error:
        raise Transient(f"Prefect at {http.base_url} does not answer ({type(error).__name__}); is its server up?") from error


def differences(http: httpx.Client, pool: Mapping[str, Any], runs_at_once: int) -> list[str]:
    """What of the pool is not as `ensure_pool` leaves it. A pool of another type has a template of its own."""
    found = {queue["name"]: queue for queue in http.post(f"/work_pools/{POOL}/queues/filter", json={}).raise_for_status().json()}
    wrong = [
        f"queue {queue.name} is not as deployed"
        for queue in queues(runs_at_once)
        if (found.get(queue.name, {}).get("concurrency_limit", -1), found.get(queue.name, {}).get("is_paused")) != (queue.limit, False)
    ]
    ranked = sorted((q for q in queues(runs_at_once) if q.name in found), key=lambda queue: int(found[queue.name].get("priority") or 0))
    if [queue.priority for queue in ranked] != sorted(queue.priority for queue in ranked):
        wrong.append("its queues are in another order")
    if pool.get("concurrency_limit") != runs_at_once:
        wrong.append(f"its limit is {pool.get('concurrency_limit')}, not {runs_at_once}")
    if pool.get("type") == "process" and pool.get("base_job_template") != BASE_JOB_TEMPLATE:
        wrong.append("its job template was changed")
    return wrong


def _accepted(answer: httpx.Response, what: str) -> None:
    if answer.status_code in (401, 403):
        raise Refused("Prefect refused our credentials; set PREFECT_API_AUTH_STRING to the server's")
    if answer.is_error:
        raise Refused(f"Prefect refused {what}: {answer.status_code} {answer.text[:200]}")


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
