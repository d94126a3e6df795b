"""A whole stack as a person runs it, in a process tree of its own, and what tests do to it and see of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
from sqlalchemy import Connection, Engine

from mlrunbook.adapters.prefect.deployments import prefect_client
from mlrunbook.base import db
from mlrunbook.base.processes import MARK, marked
from mlrunbook.domain.actions import Plan, PlanKind
from mlrunbook.domain.errors import Transient
from mlrunbook.domain.incident import Incident
from mlrunbook.drills.simulator.faults import fault
from mlrunbook.drills.simulator.fleet import Fleet
from mlrunbook.drills.simulator.simulator import FleetSimulator
from mlrunbook.drills.simulator.traffic import MODEL, Access
from mlrunbook.local.addresses import Ports, running_env
from mlrunbook.local.stack import ALL_PARTS, FEATURE_SERVER, Stack
from mlrunbook.store import incidents, leases, outbox, plans, records, timeline
from mlrunbook.store.timeline import Entry

CHECKOUT = Path(__file__).parents[2]
LEASE_S = 4
# Features travel in the requests: importing Feast in every run would double the time of these tests. With Feast: tests/drills/test_demo.py.
PARTS = ALL_PARTS - {FEATURE_SERVER}
# The demo's opt-in of Prefect's form, and looks that follow each other fast.
POLICY = """
models: # reported on in these tests, and registered nowhere
  pump_pressure: {owner: "Pump team"}
  weekly_check: {owner: "Pump team"}
  churn: {owner: "Customer ML"}
alerts:
  clears_after_s: 1
  latency_warning_s: 60 # the machine of a test may be busy, and nothing here is about latency
severity:
  latency_p95_ms: 60000
approvals:
  resolution:
    accept_prefect_form: true
triage:
  seconds_between_looks: 0.5
recovery_watch:
  check_every_s: 1
recurrence: # one test after another on one stack
  reopen_within_min: 0
  flapping_after: 1000
"""
SCRIPT = """
import sys
from pathlib import Path
from mlrunbook.local.addresses import Ports
from mlrunbook.local.stack import ALL_PARTS, FEATURE_SERVER, Stack, stop_on_signals

data, home, *ports = sys.argv[1:]
told = lambda line: print(line, flush=True)
try:
    with stop_on_signals(), Stack(
        Path(data), ports=Ports(*map(int, ports)), home=Path(home), parts=ALL_PARTS - {FEATURE_SERVER}, with_approver=True,
        durable=False, report=told
    ) as stack:
        stack.wait()
except KeyboardInterrupt:
    print("stopped", flush=True)
"""


class ChildStack(Stack):
    """`Stack` in a process of its own, as `mlrunbook up` is one, so that all of it can be killed."""

    def __init__(self, data_dir: Path, *, ports: Ports) -> None:
        super().__init__(data_dir, ports=ports, home=CHECKOUT, parts=PARTS, with_approver=True, durable=False)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def database_url(self) -> str:
        return running_env(self.data)["MLRUNBOOK_DATABASE_URL"]

    @property
    def stack_id(self) -> str:
        return str(json.loads((self.data / "run" / "stack.json").read_text())["stack_id"])

    def start(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        policy = self.data / "policy.yaml"
        policy.write_text(POLICY)
        env = {key: value for key, value in os.environ.items() if not key.startswith(("MLRUNBOOK_", "PREFECT_"))} | {
            "MLRUNBOOK_POLICY": str(policy),
            "MLRUNBOOK_PLATFORM_EVALUATE_S": "4",  # each look counts a million predictions
            "MLRUNBOOK_LEASE_S": str(LEASE_S),
            "MLRUNBOOK_DISPATCH_EVERY_S": "0.6",
        }
        argv = [sys.executable, "-c", SCRIPT, str(self.data), str(self.home)]
        argv += map(str, astuple(self.ports))
        log = self.data / "up.log"
        begun = log.stat().st_size if log.exists() else 0
        with open(log, "ab") as out:
            self._process = subprocess.Popen(argv, stdout=out, stderr=out, env=env, start_new_session=True)

        def ready() -> bool:
            assert self._process is not None
            said = log.read_text()[begun:]
            assert self._process.poll() is None, f"the stack does not start:\n{said}"
            return "\nready in " in said

        wait_for("the stack is ready", ready)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()  # not SIGINT: tests started in the background pass on that it is ignored
            self._process.wait(120)

    def kill(self) -> None:
        """kill -9 of the supervisor and of everything it started, PostgreSQL included: a power cut, but for the disk."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)  # it must not see its children die, nor they be told that it did
        stack_id = self.stack_id
        while victims := [p for p in [*marked(f"{stack_id}/"), *_postgres(self.data)] if _lives(p)]:
            for victim in victims:
                with contextlib.suppress(psutil.NoSuchProcess):
                    victim.kill()
            time.sleep(0.02)
        self._process.kill()
        self._process.wait()


def _postgres(data: Path) -> list[psutil.Process]:
    pid_file = data / "postgres" / "postmaster.pid"
    with contextlib.suppress(FileNotFoundError, ValueError, IndexError, psutil.NoSuchProcess):
        server = psutil.Process(int(pid_file.read_text().split()[0]))
        if "postgres" in server.name():
            return [server, *server.children(recursive=True)]
    return []


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(what: str, condition: Callable[[], Any], timeout_s: float = 300.0, every_s: float = 0.05) -> Any:
    """The first true value of `condition()`; a part that is away for the moment counts as not yet."""
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(Transient, httpx.HTTPError):
            if found := condition():
                return found
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(every_s)


class Live:
    """The people around a running stack: the fleet's users, on-call, the lead, a saboteur; and the eyes of a test."""

    def __init__(self, stack: ChildStack) -> None:
        self.stack = stack
        at = stack.ports
        self.gateway = httpx.Client(base_url=f"http://127.0.0.1:{at.gateway}", timeout=10, trust_env=False)
        headers = {"Authorization": f"Bearer {stack.token('simulator')}"}
        self.platform = httpx.Client(base_url=f"http://127.0.0.1:{at.platform}", headers=headers, timeout=10, trust_env=False)
        self.server = httpx.Client(base_url=f"http://127.0.0.1:{at.model_server}", headers=headers, timeout=10, trust_env=False)
        self.prefect = prefect_client(f"http://127.0.0.1:{at.prefect}/api", stack.prefect_auth)
        self.simulator = FleetSimulator(
            Fleet(1),
            access=Access(str(self.server.base_url), str(self.platform.base_url), stack.token("simulator")),
            models_dir=stack.data / "models",
            seed=1,
        )
        self.killed: list[str] = []
        """What was killed, in order."""

    # -- the store

    @property
    def engine(self) -> Engine:
        return db.engine(self.stack.database_url)

    def store(self) -> contextlib.AbstractContextManager[Connection]:
        return db.transaction(self.engine)

    def incident(self, incident_id: str) -> Incident:
        with self.store() as conn:
            return incidents.get(conn, incident_id)

    def incidents(self, model: str = MODEL) -> list[Incident]:
        with self.store() as conn:
            return incidents.find(conn, model=model)

    def entries(self, incident_id: str, *kinds: str) -> list[Entry]:
        with self.store() as conn:
            return [e for e in timeline.read(conn, incident_id) if not kinds or e.kind in kinds]

    def said(self, incident_id: str, words: str) -> bool:
        return any(words in e.text for e in self.entries(incident_id))

    def lease(self, incident_id: str) -> leases.Lease:
        with self.store() as conn:
            return leases.get(conn, incident_id)

    def record(self, incident_id: str, step: str) -> dict[str, Any] | None:
        with self.store() as conn:
            return records.get(conn, incident_id, step)

    def plan(self, incident_id: str, kind: PlanKind = PlanKind.RESOLUTION) -> Plan | None:
        with self.store() as conn:
            return plans.current(conn, incident_id, kind)

    def wait_until_said(self, incident_id: str, words: str, timeout_s: float = 300.0) -> None:
        self.wait(incident_id, f"said {words!r}", lambda: self.said(incident_id, words), timeout_s)

    def wait_until_suspended(self, incident_id: str, timeout_s: float = 300.0) -> str:
        """The run that waits in Prefect for a decision."""

        def suspended() -> str | None:
            lease = self.lease(incident_id)
            return lease.holder if lease.state == "waiting" and lease.holder and self.run(lease.holder)["state_type"] == "PAUSED" else None

        return str(self.wait(incident_id, "a run waits for a decision", suspended, timeout_s))

    def wait_until_ended(self, incident_id: str, timeout_s: float = 300.0) -> Incident:
        def ended() -> bool:
            return not self.incident(incident_id).status.is_open and self.lease(incident_id).state == "done"

        self.wait(incident_id, "the incident has ended", ended, timeout_s)
        return self.incident(incident_id)

    def wait(self, incident_id: str, what: str, condition: Callable[[], Any], timeout_s: float = 300.0) -> Any:
        """`wait_for`, with the incident's timeline in the failure."""
        try:
            return wait_for(what, condition, timeout_s)
        except AssertionError as error:
            if not incident_id:
                raise
            told = "\n".join(f"{e.at:%H:%M:%S.%f} {e.kind:12} {e.text[:150]}" for e in self.entries(incident_id))
            raise AssertionError(f"{error}; {self.lease(incident_id)}\n{told}") from None

    # -- the world

    def applied(self) -> dict[str, int]:
        """Changes that really changed something, by kind, as the platform counts them."""
        return dict(self.platform.get(f"/api/v1/ml/models/{MODEL}/applied").json()["applied"])

    def serving(self) -> dict[str, Any]:
        """What the registry says is in production, from `GET .../status`."""
        return dict(self.platform.get(f"/api/v1/ml/models/{MODEL}/status").json())

    def loaded(self) -> dict[str, Any]:
        """What the running model server says that it has loaded."""
        return dict(self.server.get("/health").json())

    @contextlib.contextmanager
    def traffic(self) -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=self.simulator.run, args=(stop,), kwargs={"interval_s": 1.0, "batch": 1000}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(120)

    def release_badly(self) -> None:
        """v2.0.0 serves; trained the first time, promoted again after that."""
        version = "v2.0.0"
        if (self.stack.data / "models" / MODEL / version).exists():
            body = {"version": version, "promotedBy": "release_pipeline", "reason": f"scheduled release {version}"}
            url = f"/api/v1/ml/models/{MODEL}/promote"
            self.platform.post(url, json=body, headers=self._as("simulator")).raise_for_status()
        else:
            self.simulator.inject(fault("bad-release"))
        wait_for(f"{version} serves", lambda: self.loaded()["version"] == version)

    # -- people

    def decide(self, incident_id: str, decision: str = "approved", *, digest: str | None = None) -> httpx.Response:
        """The lead's word about the resolution plan, by REST."""
        plan = self.plan(incident_id)
        assert plan is not None
        body = {"decision": decision, "planDigest": digest or plan.digest, "reason": "looked at the findings"}
        return self.gateway.post(f"/api/v1/incidents/{incident_id}/approvals", json=body, headers=self._as("approver"))

    def order(self, incident_id: str, order: str) -> None:
        """Containment on the lead's word, by REST."""
        body = {"order": order, "reason": "pumps fail one after another"}
        self.gateway.post(f"/api/v1/incidents/{incident_id}/containment", json=body, headers=self._as("approver")).raise_for_status()

    def report(self, model: str = MODEL, **body: str) -> str:
        """A person reports through the gateway; the incident's id."""
        answer = self.gateway.post(f"/api/v1/model-governance/{model}/incidents", json=body, headers=self._as("operator"))
        answer.raise_for_status()
        return str(answer.json()["id"])

    def _as(self, token: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.stack.token(token)}"}

    def pages_on_their_way(self, incident_id: str) -> list[str]:
        with self.store() as conn:
            pages = outbox.of_incident(conn, incident_id, "page")
        waiting = [row for row in pages if row["delivered_at"] is None and row["cancelled_at"] is None]
        return [row["dedup_key"] for row in waiting if row["not_before"] <= datetime.now(UTC)]

    # -- Prefect

    def deployment(self, name: str) -> str:
        return str(self.prefect.get(f"/deployments/name/{name}/{name}").raise_for_status().json()["id"])

    def create_run(self, deployment: str, **parameters: Any) -> httpx.Response:
        return self.prefect.post(f"/deployments/{self.deployment(deployment)}/create_flow_run", json={"parameters": parameters})

    def start(self, deployment: str, **parameters: Any) -> str:
        return str(self.create_run(deployment, **parameters).raise_for_status().json()["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        return dict(self.prefect.get(f"/flow_runs/{run_id}").raise_for_status().json())

    def wait_until_run_is(self, run_id: str, state: str, timeout_s: float = 300.0) -> None:
        wait_for(f"run {run_id} is {state}", lambda: self.run(run_id)["state_type"] == state, timeout_s)

    def fill_in_form(self, run_id: str, decision: str, *, name: str = "Team Lead", comment: str = "seen") -> dict[str, Any]:
        """What the form of Prefect's UI sends."""
        answer = {"run_input": {"decision": decision, "name": name, "comment": comment}}
        return dict(self.prefect.post(f"/flow_runs/{run_id}/resume", json=answer).raise_for_status().json())

    def artifacts(self, incident_id: str) -> dict[str, Any]:
        """key -> data of the newest artifact of that key."""
        wanted = {"artifacts": {"key": {"like_": incident_id.replace("_", "-") + "-"}}}
        return {a["key"]: a["data"] for a in self.prefect.post("/artifacts/latest/filter", json=wanted).raise_for_status().json()}

    def artifact(self, key: str) -> str:
        """The newest of that key."""
        (found,) = self.prefect.post("/artifacts/latest/filter", json={"artifacts": {"key": {"any_": [key]}}}).raise_for_status().json()
        return str(found["data"])

    def read(self, link: str) -> str:
        """A page of the gateway, opened by a link that was shown."""
        return self.gateway.get(link, headers=self._as("operator")).raise_for_status().text

    # -- the saboteur

    def flow(self, incident_id: str) -> psutil.Process:
        """The process of the run that holds the incident's lease."""
        holder = self.lease(incident_id).holder
        for process in marked(f"{self.stack.stack_id}/worker/"):
            with contextlib.suppress(psutil.Error):
                if process.environ().get("PREFECT__FLOW_RUN_ID") == holder:
                    return process
        raise AssertionError(f"no process of run {holder}")

    def kill_flow(self, incident_id: str, when: str, process: psutil.Process | None = None) -> None:
        """kill -9 of the flow's process; look it up before where the moment is short."""
        (process or self.flow(incident_id)).kill()
        self.killed.append(f"the flow {when}")

    def kill_part(self, name: str, when: str) -> None:
        """kill -9 of one part of the stack; the supervisor starts it again."""
        mark = f"{self.stack.stack_id}/{name}/"
        mine = [p for p in marked(mark) if p.environ().get(MARK) == mark and "PREFECT__FLOW_RUN_ID" not in p.environ()]
        assert mine, f"no {name} to kill"
        for process in mine:
            process.kill()
        self.killed.append(f"{name} {when}")
