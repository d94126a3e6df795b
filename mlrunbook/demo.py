"""`mlrunbook demo`: one fault, injected into a live stack, and the runbook's answer to it, told as it happens.

The demo plays the people: the fleet's users (traffic), the on-call engineer (acknowledges), the team lead (decides). What it never
does is tell the flows what is wrong: the platform's alerts do.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mlrunbook import db, summary
from mlrunbook.addresses import HOST, Ports
from mlrunbook.domain.errors import Invalid, Transient
from mlrunbook.domain.incident import Status
from mlrunbook.platform.faults import Fault, fault
from mlrunbook.platform.simulator import MODEL, FleetSimulator
from mlrunbook.stack import Stack, stop_on_signals
from mlrunbook.steps import lifecycle
from mlrunbook.store import incidents, timeline
from mlrunbook.store.timeline import Entry
from mlrunbook.traffic import BATCH, flowing, simulator_for, source_of, wait_until_served

# Prefect's form counts as a door; the fleet being busy, recovery is judged on more failures than the least that will do; its readings
# are seconds old, and a promotion is watched for as long as an audience waits.
POLICY = """
approvals:
  resolution:
    accept_prefect_form: true
recovery:
  min_positives: 100
triage:
  seconds_between_looks: 2
features:
  max_lag_s: 10
retraining:
  watch_s: 3
"""
GIVE_UP_S = {"auto": 180.0, "ask": 1800.0, "ui": 1800.0}  # people take their time
TEXT_LIMIT = 240
SETTLED_TICKS = 1  # of ordinary traffic before the fault
STYLES = {
    "status": "bold",
    "action": "green",
    "page": "red",
    "approval": "yellow",
    "plan": "yellow",
    "diagnosis": "magenta",
    "recovery": "green",
}


def run(fault_name: str, *, approve: str, data: Path | None, out: Path | None, seed: int, home: Path) -> int:
    """0 only if the incident ended as the fault's known truth says."""
    chosen = fault(fault_name)
    console = Console(highlight=False)
    if approve not in GIVE_UP_S:
        raise Invalid(f"--approve must be ask, auto or ui, not {approve!r}", field="approve")
    if approve == "ask" and not sys.stdin.isatty():
        console.print("No terminal to ask on: the demo decides by itself (--approve auto).")
        approve = "auto"
    source = source_of(data, seed)
    with _folder() as folder, stop_on_signals():
        begun = time.monotonic()
        _settings(folder)
        console.rule(f"[bold]mlrunbook demo: {chosen.name}")
        fleet: list[FleetSimulator] = []

        def seed_history(stack: Stack) -> None:
            fleet.append(simulator_for(stack, source, seed=seed))
            fleet[0].build_history(db.engine(stack.database_url), now=datetime.now(UTC))

        stack = Stack(
            folder,
            ports=Ports.free(),
            home=home,
            with_approver=True,
            report=lambda line: console.print(f"  [dim]{escape(line)}"),
            meanwhile=seed_history,
        )
        with stack:
            code = 1
            try:
                code = Demo(stack, chosen, fleet[0], approve, out, console, begun).play()
            finally:
                if code and out:
                    shutil.copytree(stack.data / "logs", out / "logs", dirs_exist_ok=True)
            return code


class Demo:
    """One demo on one started stack."""

    def __init__(
        self, stack: Stack, chosen: Fault, simulator: FleetSimulator, approve: str, out: Path | None, console: Console, begun: float
    ) -> None:
        self._stack, self._fault, self._approve, self._out, self._console = stack, chosen, approve, out, console
        self._engine = db.engine(stack.database_url)
        env = stack.env()
        self._gateway = httpx.Client(base_url=env["MLRUNBOOK_GATEWAY_URL"], timeout=10.0, trust_env=False)
        self._platform = httpx.Client(base_url=env["MLRUNBOOK_PLATFORM_URL"], timeout=10.0, trust_env=False)
        self._simulator = simulator
        self._begun, self._injected = begun, 0.0
        self._shown, self._asked, self._mended = 0, set[str](), False

    def play(self) -> int:
        say = self._console.print
        say(f"  Prefect UI [cyan]http://{HOST}:{self._stack.ports.prefect}[/]  gateway [cyan]http://{HOST}:{self._stack.ports.gateway}[/]")
        if self._approve == "ui":
            say(f"  The UI asks for a login: {self._stack.data / 'secrets' / 'prefect-auth'} holds it.")
        wait_until_served(self._stack)
        say(f"  [dim]fleet history seeded, model serves; {time.monotonic() - self._begun:.1f} s since the start")
        if self._fault.truth.status is not Status.FALSE_ALARM:  # a blip is a small window: nothing may come before it
            for _ in range(SETTLED_TICKS):
                self._simulator.tick(BATCH)
        before = self._applied()
        injected_at = datetime.now(UTC)
        self._injected = time.monotonic()
        say(f"\n[bold red]Fault injected:[/] {escape(self._simulator.inject(self._fault))}\n")
        with flowing(self._simulator):
            incident_id = self._follow()
            facts = self._conclude(incident_id, injected_at, before)
        return self._verdict(facts)

    def _follow(self) -> str:
        """Show the timeline as it grows, and play the people, until the incident has ended."""
        incident_id = ""
        patience_s = GIVE_UP_S[self._approve]
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            with db.transaction(self._engine) as conn:
                found = incidents.find(conn, model=MODEL)[-1:]  # the first one: what follows from it may open others
                entries = timeline.read(conn, found[0].id, after=self._shown) if found else []
            for entry in entries:
                self._show(entry)
            if found:
                incident_id = found[0].id
                self._act_as_people(found[0], entries)
                if self._has_ended(incident_id):
                    return incident_id
            time.sleep(0.2)
        raise Transient(f"the incident did not end within {patience_s:.0f} s; look at the logs in {self._stack.data / 'logs'}")

    def _has_ended(self, incident_id: str) -> bool:
        with db.transaction(self._engine) as conn:
            return summary.has_ended(conn, incident_id)

    def _show(self, entry: Entry) -> None:
        self._shown = entry.seq
        text = entry.text if len(entry.text) <= TEXT_LIMIT else entry.text[: TEXT_LIMIT - 1] + "…"
        row = Table.grid(padding=(0, 1))
        for width in (8, 8, 12, None):
            row.add_column(width=width, justify="right" if width else "left", no_wrap=bool(width))
        since = f"+{time.monotonic() - self._injected:.1f} s"
        row.add_row(f"[dim]{entry.at:%H:%M:%S}", f"[dim]{since}", f"[{STYLES.get(entry.kind, 'default')}]{entry.kind}", escape(text))
        self._console.print(row)

    def _act_as_people(self, incident: Any, entries: list[Entry]) -> None:
        """Acknowledge when paged; decide when asked."""
        if any(e.kind == "page" for e in entries) and incident.acknowledged_at is None:
            self._post(f"/api/v1/incidents/{incident.id}/acknowledge", {}, "operator")
        stopped = any(e.kind == "waiting" and e.text.startswith(lifecycle.WAITING_FOR_HUMAN) for e in entries)
        if stopped and self._fault.truth.path is None and not self._mended:
            self._mended = True
            what = self._simulator.repair(self._fault)
            self._post(f"/api/v1/incidents/{incident.id}/resolve", {"what": what, "rootCause": self._fault.truth.cause}, "operator")
        if self._approve == "ui":
            return
        with db.transaction(self._engine) as conn:
            digest = summary.waiting_for_decision(conn, incident.id)
        if digest is None or digest in self._asked:
            return
        self._asked.add(digest)
        yes = self._approve == "auto" or self._console.input("[bold yellow]  Approve this plan? [y/N] [/]").strip().lower() in ("y", "yes")
        decision = "approved" if yes else "rejected"
        body = {"decision": decision, "planDigest": digest, "reason": "decided in the demo"}
        self._post(f"/api/v1/incidents/{incident.id}/approvals", body, "approver")

    def _post(self, path: str, body: dict[str, Any], token: str) -> None:
        answer = self._gateway.post(path, json=body, headers={"Authorization": f"Bearer {self._stack.token(token)}"})
        if answer.is_error:
            raise Invalid(f"the gateway refused {path}: {answer.status_code} {answer.text[:300]}")

    def _applied(self) -> dict[str, int]:
        answer = self._platform.get(f"/api/v1/ml/models/{MODEL}/applied")
        return dict(answer.json()["applied"]) if answer.is_success else {}

    def _conclude(self, incident_id: str, injected_at: datetime, before: dict[str, int]) -> dict[str, Any]:
        after = self._applied()
        applied = {kind: after[kind] - before.get(kind, 0) for kind in after}
        with db.transaction(self._engine) as conn:
            facts = summary.summarise(conn, incident_id, fault=self._fault.name, injected_at=injected_at, applied=applied)
            review = summary.review_of(conn, incident_id)
        if self._out:
            facts["files"] = _keep(self._out, facts, review, self._stack.data / "messages" / incident_id)
        return facts

    def _verdict(self, facts: dict[str, Any]) -> int:
        wrong = summary.differences(facts, self._fault.truth)
        _print_summary(self._console, facts)
        total = time.monotonic() - self._begun
        if wrong:
            for line in wrong:
                self._console.print(f"[bold red]Wrong:[/] {escape(line)}")
            self._console.print(f"[bold red]The outcome is not the known truth of {self._fault.name}.[/] {total:.1f} s in all.")
            return 1
        self._console.print(f"[bold green]As it should be:[/] {escape(summary.in_words(facts))} {total:.1f} s in all.")
        return 0


def _print_summary(console: Console, facts: dict[str, Any]) -> None:
    table = Table(title=f"{facts['incident_id']}: what was changed", title_justify="left", show_lines=False)
    for column in ("Change", "State", "Applied", "Afterwards"):
        table.add_column(column, overflow="fold")
    for action in facts["actions"]:
        table.add_row(
            escape(action["name"]), action["state"], str(action["applied_count"]), escape(action["undone"] or "stays: it is the fix")
        )
    if not facts["actions"]:
        table.add_row("nothing", "", "", "")
    console.print()
    console.print(table)
    f1 = {k: "not measured" if v is None else f"{v:.3f}" for k, v in facts["f1"].items()}
    console.print(f"F1: baseline {f1['baseline']}, during {f1['during']}, after {f1['after']}")
    spans = {k: "-" if v is None else f"{v:.1f} s" for k, v in facts["seconds"].items()}
    console.print("Time " + ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in spans.items()))
    console.print(f"Pages {len(facts['pages'])}, approvals {len(facts['approvals'])}")


def _settings(folder: Path) -> None:
    """The demo's own settings: its policy, fast alert evaluation, a short lease."""
    policy = folder / "demo-policy.yaml"
    policy.write_text(POLICY)
    os.environ |= {
        "MLRUNBOOK_STACK": str(folder),  # nothing of the caller's own is used
        "MLRUNBOOK_POLICY": str(policy),
        "MLRUNBOOK_PLATFORM_EVALUATE_S": "1",
        "MLRUNBOOK_LEASE_S": "15",
        "MLRUNBOOK_DISPATCH_EVERY_S": "0.3",
    }


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="mlrunbook-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _keep(out: Path, facts: dict[str, Any], review: str | None, messages: Path) -> list[str]:
    """summary.json, review.md, timeline.json and the messages, under `out`."""
    out.mkdir(parents=True, exist_ok=True)
    files = ["summary.json", "timeline.json"]
    (out / "timeline.json").write_text(json.dumps(facts.pop("timeline"), indent=2, default=str))
    if review:
        (out / "review.md").write_text(review)
        files.append("review.md")
    if messages.exists():
        shutil.copytree(messages, out / "messages", dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.new"))
        files += sorted(f"messages/{p.name}" for p in (out / "messages").iterdir())
    (out / "summary.json").write_text(json.dumps({**facts, "files": files}, indent=2, default=str))
    return files
