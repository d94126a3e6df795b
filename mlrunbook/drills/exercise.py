"""One fault on a running stack, and the people around it: for the demo and the game day.

The people are the fleet's users (traffic), the on-call engineer (acknowledges), the team lead (decides) and whoever mends what no
automatic path does. None of them tells the flows what is wrong: the platform's alerts do.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Connection, Engine

from mlrunbook.base import db
from mlrunbook.domain.errors import Invalid, Transient
from mlrunbook.domain.incident import Incident, Status
from mlrunbook.drills import scoring
from mlrunbook.drills.fleet_runner import BATCH, flowing, wait_until_served
from mlrunbook.drills.simulator.faults import Fault
from mlrunbook.drills.simulator.simulator import FleetSimulator
from mlrunbook.local.stack import Stack
from mlrunbook.response.lifecycle import runs
from mlrunbook.store import incidents, plans, timeline
from mlrunbook.store.timeline import Entry

SETTLED_TICKS = 1  # of ordinary traffic before the fault
ALARMED_WITHIN_S = 2.0  # what that traffic sets off is told by then
SEEN_MENDED_AFTER_S = 3.0  # whoever mends looks at the first good readings before saying so
# The fleet being busy, recovery is judged on more failures than the least that will do; its readings are seconds old, and a promotion is
# watched for as long as an audience waits.
POLICY = """
alerts:
  clears_after_s: 1
approvals:
  resolution:
    accept_prefect_form: true
recovery:
  min_positives: 100
triage:
  seconds_between_looks: 2
features:
  max_lag_s: 10
recurrence: # one exercise after another
  reopen_within_min: 0
  flapping_after: 1000
retraining:
  watch_s: 3
safety:
  critical_assets: [press_1]
"""
FAST = {"MLRUNBOOK_PLATFORM_EVALUATE_S": "1", "MLRUNBOOK_LEASE_S": "15", "MLRUNBOOK_DISPATCH_EVERY_S": "0.3"}


class Exercise:
    """`decide(incident, digest)` answers for the team lead, None: somebody else does. `show(entry)` gets each new timeline entry. `applied`
    counts the changes made to what serves, by kind; by default the model platform does.

    `injected` is `time.monotonic()` of the fault, 0 before it.
    """

    def __init__(
        self,
        stack: Stack,
        chosen: Fault,
        simulator: FleetSimulator,
        *,
        decide: Callable[[str, str], bool | None] = lambda *_: True,
        show: Callable[[Entry], None] = lambda _: None,
        patience_s: float = 600.0,
        applied: Callable[[], dict[str, int]] | None = None,
    ) -> None:
        self.stack, self.fault, self._simulator = stack, chosen, simulator
        self._model, self._counted = simulator.model, applied
        self._decide, self._show, self._patience_s = decide, show, patience_s
        self._engine = db.engine(stack.database_url)
        env = stack.env()
        self._gateway = httpx.Client(base_url=env["MLRUNBOOK_GATEWAY_URL"], timeout=10.0, trust_env=False)
        headers = {"Authorization": f"Bearer {stack.token('simulator')}"}
        self._platform = httpx.Client(base_url=env["MLRUNBOOK_PLATFORM_URL"], headers=headers, timeout=10.0, trust_env=False)
        self.injected = 0.0
        self._known: set[str] = set()  # incidents from before the fault
        self._shown, self._asked = 0, set[str]()
        self._mended: tuple[float, str] | None = None  # when, and what was done

    def prepare(self) -> None:
        """The model serves, the fleet has been at work for a moment, and nothing that it set off is still open: an incident from before
        the fault would be carried on as if it were about the fault."""
        if self._simulator.has_server:
            wait_until_served(self.stack, self._model)
        self._know_all()
        if self.fault.truth.status is not Status.FALSE_ALARM:  # a blip is a small window: nothing may come before it
            for _ in range(SETTLED_TICKS):
                self._simulator.tick(BATCH)
            time.sleep(ALARMED_WITHIN_S)
            self.settle()
            self._know_all()

    def _know_all(self) -> None:
        with db.transaction(self._engine) as conn:
            self._known = {i.id for i in incidents.find(conn, model=self._model)}

    def inject(self) -> str:
        """Break it; one sentence on what was done."""
        self._injected_at = datetime.now(UTC)
        self.injected = time.monotonic()
        told = self._simulator.inject(self.fault)
        self._before = self._applied()  # a release that is the fault is no change that the runbook made
        return told

    def follow(self) -> dict[str, Any]:
        """With traffic flowing, until the incident has ended; its summary. Transient when it does not end in time."""
        with flowing(self._simulator):
            incident_id = self._until_ended()
            after = self._applied()
            applied = {kind: after[kind] - self._before.get(kind, 0) for kind in after}
            about: dict[str, Any] = {"fault": self.fault.name, "injected_at": self._injected_at, "applied": applied}
            with db.transaction(self._engine) as conn:
                return (
                    scoring.summarise(conn, incident_id, **about) if incident_id else scoring.nothing_happened(**about, model=self._model)
                )

    def timelines(self) -> dict[str, list[Entry]]:
        """Of every incident since the fault, as far as they have come."""
        with db.transaction(self._engine) as conn:
            return {i.id: timeline.read(conn, i.id) for i in self._since_the_fault(conn)}

    def _until_ended(self) -> str | None:
        """The first incident since the fault: what follows from it may open others. None when none came, and none was to come."""
        deadline = time.monotonic() + self._patience_s
        quiet_s = self.fault.truth.quiet_s
        while time.monotonic() < deadline:
            with db.transaction(self._engine) as conn:
                opened = self._since_the_fault(conn)
                found = opened[-1] if opened else None
                entries = timeline.read(conn, found.id, after=self._shown) if found else []
                ended = found is not None and scoring.has_ended(conn, found.id)
            for entry in entries:
                self._shown = entry.seq
                self._show(entry)
            for other in opened[:-1]:  # what serves may wait for a decision about one that the fault opened later
                self._answer_what_waits(other)
            if found:
                self._act_as_people(found, entries)
                if ended and not entries:
                    return found.id
            elif quiet_s is not None and time.monotonic() - self.injected > quiet_s:
                return None
            time.sleep(0.2)
        raise Transient(f"the incident did not end within {self._patience_s:.0f} s; look at the logs in {self.stack.data / 'logs'}")

    def _since_the_fault(self, conn: Connection) -> list[Incident]:
        """Newest first."""
        return [i for i in incidents.find(conn, model=self._model) if i.id not in self._known]

    def _act_as_people(self, incident: Incident, entries: list[Entry]) -> None:
        """Acknowledge when paged; decide when asked; mend what is for people to mend."""
        if any(e.kind == "page" for e in entries) and incident.acknowledged_at is None:
            self._post(f"/api/v1/incidents/{incident.id}/acknowledge", {}, "operator")
        stopped = any(e.kind == "waiting" and e.text.startswith(runs.WAITING_FOR_HUMAN) for e in entries)
        if stopped and self.fault.truth.path is None:  # each time: what was measured too early is said again
            self._mended = time.monotonic(), self._simulator.repair(self.fault)
        if self._mended and time.monotonic() - self._mended[0] >= SEEN_MENDED_AFTER_S:
            what, self._mended = self._mended[1], None
            self._post(f"/api/v1/incidents/{incident.id}/resolve", {"what": what, "rootCause": self.fault.truth.cause}, "operator")
        self._answer_what_waits(incident)

    def _answer_what_waits(self, incident: Incident) -> None:
        with db.transaction(self._engine) as conn:
            digest, release = scoring.waiting_for_decision(conn, incident.id), scoring.waiting_for_release(conn, incident.id)
        if release and release not in self._asked and self.fault.truth.path is None:  # mended before clients are let back in
            self._asked.add(release)
            body = {"decision": "approved", "planDigest": release, "reason": self._simulator.repair(self.fault)}
            self._post(f"/api/v1/incidents/{incident.id}/approvals", body, "security-officer")
        if digest is not None and digest not in self._asked:
            self._decide_as_lead(incident, digest)

    def _decide_as_lead(self, incident: Incident, digest: str) -> None:
        answer = self._decide(incident.id, digest)
        if answer is None:
            return
        self._asked.add(digest)
        with db.transaction(self._engine) as conn:
            if plans.approvals_of(conn, incident.id, digest):
                return  # decided in the console, while the question stood here
        body = {"decision": "approved" if answer else "rejected", "planDigest": digest, "reason": "decided in the exercise"}
        self._post(f"/api/v1/incidents/{incident.id}/approvals", body, "approver")

    def sign_in_link(self, path: str = "") -> str:
        """Signs a browser in to the console as the team lead, once, and shows that page."""
        return str(self._post("/api/v1/console/links", {"next": path}, "approver")["url"])

    def _post(self, path: str, body: dict[str, Any], token: str) -> dict[str, Any]:
        answer = self._gateway.post(path, json=body, headers={"Authorization": f"Bearer {self.stack.token(token)}"})
        if answer.is_error:
            raise Invalid(f"the gateway refused {path}: {answer.status_code} {answer.text[:300]}")
        return dict(answer.json())

    def _applied(self) -> dict[str, int]:
        if self._counted is not None:
            return self._counted()
        answer = self._platform.get(f"/api/v1/ml/models/{self._model}/applied")
        return dict(answer.json()["applied"]) if answer.is_success else {}

    def settle(self, patience_s: float = 90.0) -> None:
        """Until nothing that the fault has opened is still at work; people end what follows from it. Transient when something stays."""
        deadline, told = time.monotonic() + patience_s, set[str]()
        with flowing(self._simulator):
            while time.monotonic() < deadline:
                with db.transaction(self._engine) as conn:
                    others = [i for i in self._since_the_fault(conn) if not scoring.has_ended(conn, i.id)]
                if not others:
                    return
                for other in others:
                    if other.id not in told and other.status.is_open:
                        told.add(other.id)
                        what = {"what": "it follows from another incident that is over", "rootCause": self.fault.truth.cause}
                        self._post(f"/api/v1/incidents/{other.id}/resolve", what, "operator")
                time.sleep(0.2)
        raise Transient(f"{', '.join(o.id for o in others)} did not end within {patience_s:.0f} s of the incident that it follows from")


def keep(out: Path, facts: dict[str, Any], engine: Engine, messages: Path) -> None:
    """summary.json, review.md, timeline.json and the messages, under `out`."""
    out.mkdir(parents=True, exist_ok=True)
    incident_id, files = str(facts["incident_id"]), ["summary.json", "timeline.json"]
    (out / "timeline.json").write_text(json.dumps(facts.pop("timeline"), indent=2, default=str))
    with db.transaction(engine) as conn:
        review = scoring.review_of(conn, incident_id)
    if review:
        (out / "review.md").write_text(review)
        files.append("review.md")
    if (messages / incident_id).exists():
        shutil.copytree(messages / incident_id, out / "messages", dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.new"))
        files += sorted(f"messages/{p.name}" for p in (out / "messages").iterdir())
    facts["files"] = files
    (out / "summary.json").write_text(json.dumps(facts, indent=2, default=str))
