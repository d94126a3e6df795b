"""Starting and resuming flow runs through Prefect's REST API.

Plain HTTP: importing the Prefect client costs the gateway seconds, and flows are started by deployment name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from mlrunbook.adapters.prefect.deployments import CRITICAL, INCIDENTS
from mlrunbook.domain.errors import NotFound, Refused, Transient

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED", "CANCELLING"}


class PrefectApi:
    """`auth` is "user:password" as in PREFECT_API_AUTH_STRING."""

    def __init__(self, url: str, auth: str | None = None, *, timeout_s: float = 10.0, transport: httpx.BaseTransport | None = None) -> None:
        user, _, password = (auth or "").partition(":")
        self._http = httpx.Client(
            base_url=url.rstrip("/"), auth=(user, password) if auth else None, timeout=timeout_s, transport=transport, trust_env=False
        )

    def start(
        self, deployment: str, parameters: Mapping[str, Any], *, idempotency_key: str, name: str | None = None, urgent: bool = False
    ) -> str:
        found = self._call("GET", f"/deployments/name/{deployment}/{deployment}")
        body = {
            "parameters": dict(parameters),
            "idempotency_key": idempotency_key,
            "state": {"type": "SCHEDULED"},
            "work_queue_name": CRITICAL if urgent else INCIDENTS,
        } | ({"name": name} if name else {})
        return str(self._call("POST", f"/deployments/{found['id']}/create_flow_run", json=body)["id"])

    def resume(self, run_id: str, run_input: Mapping[str, Any]) -> None:
        answer = self._call("POST", f"/flow_runs/{run_id}/resume", json={"run_input": dict(run_input)})
        if answer.get("status") == "ACCEPT":
            return
        why = (answer.get("details") or {}).get("reason") or answer.get("status")
        state = self._state(run_id)
        if state in FINAL:
            raise Refused(f"run {run_id} is {state.lower()} and cannot be resumed")
        raise Transient(f"Prefect did not resume run {run_id} ({state.lower()}): {why}")

    def is_suspended(self, run_id: str) -> bool:
        return self._state(run_id) == "PAUSED"

    def is_queued(self, run_id: str) -> bool:
        return self._state(run_id) in ("SCHEDULED", "PENDING")

    def is_held_up(self, run_id: str) -> bool:
        run = self._call("GET", f"/flow_runs/{run_id}")
        return run.get("state_type") == "SCHEDULED" and run.get("work_queue_name") != CRITICAL

    def cancel(self, run_id: str, why: str) -> None:
        state = self._state(run_id)
        if state not in FINAL:
            kind = "CANCELLING" if state == "RUNNING" else "CANCELLED"  # of a run at work the worker ends the process, then says so
            self._call("POST", f"/flow_runs/{run_id}/set_state", json={"state": {"type": kind, "message": why}})

    def _state(self, run_id: str) -> str:
        return str(self._call("GET", f"/flow_runs/{run_id}").get("state_type") or "")

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        try:
            answer = self._http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise Transient(f"Prefect at {self._http.base_url} does not answer ({type(error).__name__}); is its server up?") from error
        if answer.status_code == 404:
            raise NotFound(f"Prefect knows no {path.strip('/').replace('name/', '')}; run `mlrunbook deploy`, then try again")
        if answer.status_code in (401, 403):
            raise Refused("Prefect refused our credentials; set PREFECT_API_AUTH_STRING to the server's")
        if answer.status_code == 429 or answer.status_code >= 500:
            raise Transient(f"Prefect answered {answer.status_code} to {method} {path}")
        if answer.status_code >= 400:
            raise Refused(f"Prefect answered {answer.status_code} to {method} {path}: {answer.text[:300]}")
        return dict(answer.json())
