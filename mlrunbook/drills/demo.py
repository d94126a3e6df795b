"""`mlrunbook demo`: one fault, injected into a live stack, and the runbook's answer to it, told as it happens.

The demo plays the people: the fleet's users (traffic), the on-call engineer (acknowledges), the team lead (decides). What it never
does is tell the flows what is wrong: the platform's alerts do.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.prompt import Confirm
from rich.table import Table

from mlrunbook.base import db
from mlrunbook.base.settings import Settings
from mlrunbook.domain.communication import console_links
from mlrunbook.domain.errors import Invalid
from mlrunbook.drills import scoring
from mlrunbook.drills.exercise import FAST, POLICY, Exercise, keep
from mlrunbook.drills.fleet_runner import simulator_for, source_of, wait_until_served
from mlrunbook.drills.simulator.faults import Fault, fault
from mlrunbook.drills.simulator.simulator import FleetSimulator
from mlrunbook.local.addresses import HOST, Ports
from mlrunbook.local.stack import Stack, stop_on_signals
from mlrunbook.store.timeline import Entry

if TYPE_CHECKING:
    from mlrunbook.drills.mlflow_team.world import MlflowWorld

KUBERNETES, MLFLOW = "kubernetes", "mlflow"
GIVE_UP_S = {"auto": 600.0, "ask": 1800.0, "ui": 1800.0, "console": 1800.0}  # people take their time
TEXT_LIMIT = 240
STYLES = {
    "status": "bold",
    "action": "green",
    "page": "red",
    "approval": "yellow",
    "plan": "yellow",
    "diagnosis": "magenta",
    "recovery": "green",
}


@dataclass(frozen=True)
class Options:
    """`platform`: what the model's platform is; `runtime`: where its serving objects are."""

    approve: str = "auto"
    data: Path | None = None
    out: Path | None = None
    seed: int = 0
    runtime: str = "local"
    platform: str = "rest"
    models: int = 1


def run(fault_name: str, options: Options, *, home: Path) -> int:
    """0 only if the incident ended as the fault's known truth says."""
    chosen, approve, out, seed = fault(fault_name), options.approve, options.out, options.seed
    console = Console(highlight=False)
    if approve not in GIVE_UP_S:
        raise Invalid(f"--approve must be ask, auto, console or ui, not {approve!r}", field="approve")
    if approve == "ask" and not sys.stdin.isatty():
        console.print("No terminal to ask on: the demo decides by itself (--approve auto).")
        approve = "auto"
    if options.platform == MLFLOW:
        _check_mlflow(chosen, options)
    elif options.models > 1:
        raise Invalid("--models 2 needs --platform mlflow", field="models")
    source = source_of(options.data, seed)
    with _folder() as folder, stop_on_signals():
        begun = time.monotonic()
        team = _team(folder, options) if options.platform == MLFLOW else None
        _settings(folder, options.runtime, team)
        console.rule(f"[bold]mlrunbook demo: {chosen.name}")
        fleet: list[FleetSimulator] = []

        def seed_history(stack: Stack) -> None:
            if team:
                fleet.append(team.seeded(stack, source, seed=seed))
                return
            fleet.append(simulator_for(stack, source, seed=seed))
            fleet[0].build_history(db.engine(stack.database_url), now=datetime.now(UTC))

        ports = Ports.free()
        os.environ["MLRUNBOOK_PUBLIC_URL"] = f"http://{HOST}:{ports.gateway}"  # every message links to the console
        stack = Stack(
            folder,
            ports=ports,
            home=home,
            with_approver=True,
            report=lambda line: console.print(f"  [dim]{escape(line)}"),
            meanwhile=seed_history,
        )
        with stack:
            code = 1
            try:
                with _serving(stack, options.runtime, console), team.at_work(stack) if team else contextlib.nullcontext():
                    fleet += [team.second] if team and team.second else []
                    code = play([Demo(stack, chosen, one, options, console, begun, team) for one in fleet])
            finally:
                if code and out:
                    shutil.copytree(stack.data / "logs", out / "logs", dirs_exist_ok=True)
            return code


def play(demos: Sequence[Demo]) -> int:
    """Break every model, and follow all of them at the same time."""
    demos[0].introduce()
    for demo in demos:
        demo.prepare()
    demos[0].say_ready()
    for demo in demos:
        demo.break_it()
    with ThreadPoolExecutor(len(demos), thread_name_prefix="demo") as pool:
        followed = list(pool.map(Demo.follow, demos))
    return max(demo.end(facts) for demo, facts in zip(demos, followed, strict=True))


class Demo:
    """One model of a demo, on a started stack."""

    def __init__(
        self,
        stack: Stack,
        chosen: Fault,
        simulator: FleetSimulator,
        options: Options,
        console: Console,
        begun: float,
        team: MlflowWorld | None = None,
    ) -> None:
        self._stack, self._fault, self._console, self._begun, self._team = stack, chosen, console, begun, team
        self._model, self._is_one_of_several = simulator.model, options.models > 1
        self._approve, self._out = options.approve, options.out
        self._told = set[str]()
        self._exercise = Exercise(
            stack,
            chosen,
            simulator,
            decide=self._decide,
            show=self._show,
            patience_s=GIVE_UP_S[options.approve],
            applied=partial(team.applied, simulator.model) if team else None,
        )

    def introduce(self) -> None:
        say = self._console.print
        console_url = self._stack.env()["MLRUNBOOK_GATEWAY_URL"]
        say(f"  Console [cyan]{console_url}[/]  Prefect UI [cyan]http://{HOST}:{self._stack.ports.prefect}[/]")
        say(f"  Sign in to the console as the ML Team Lead: [cyan]{self._exercise.sign_in_link()}[/]", soft_wrap=True)
        say(f"  (it works once, within ten minutes; later: the token in {self._stack.data / 'secrets' / 'approver.token'})", soft_wrap=True)
        if self._approve == "ui":
            say(f"  The UI asks for a login: {self._stack.data / 'secrets' / 'prefect-auth'} holds it.")

    def prepare(self) -> None:
        if self._team:
            for line in self._team.introduced(self._model):
                self._console.print(f"  {line}", soft_wrap=True)
        self._exercise.prepare()

    def say_ready(self) -> None:
        self._console.print(f"  [dim]fleet history seeded, model serves; {time.monotonic() - self._begun:.1f} s since the start\n")

    def break_it(self) -> None:
        self._console.print(f"[bold red]Fault injected:[/] {escape(self._exercise.inject())}")

    def follow(self) -> dict[str, Any]:
        return self._exercise.follow()

    def end(self, facts: dict[str, Any]) -> int:
        if self._out:
            out = self._out / self._model if self._is_one_of_several else self._out
            keep(out, facts, db.engine(self._stack.database_url), self._stack.data / "messages")
        return self._verdict(facts)

    def _decide(self, incident_id: str, digest: str) -> bool | None:
        """The team lead's answer; None: given in the console or in Prefect's form."""
        if self._approve != "auto" and digest not in self._told:
            self._told.add(digest)
            words = {"ui": "Your decision is needed in Prefect's form, or in the console", "ask": "The plan in full"}
            said = words.get(self._approve, "Your decision is needed in the console")
            link = self._exercise.sign_in_link(console_links.of_decision(incident_id, digest))
            self._console.print(f"[bold yellow]  {said}:[/] [cyan]{link}[/]", soft_wrap=True)
        if self._approve in ("console", "ui"):
            return None
        return self._approve == "auto" or Confirm.ask("[bold yellow]  Approve this plan?[/]", console=self._console, default=False)

    def _show(self, entry: Entry) -> None:
        text = entry.text if len(entry.text) <= TEXT_LIMIT else entry.text[: TEXT_LIMIT - 1] + "…"
        row = Table.grid(padding=(0, 1))
        for width in (8, 8, 12, None):
            row.add_column(width=width, justify="right" if width else "left", no_wrap=bool(width))
        who = f"{self._model}: " if self._is_one_of_several else ""
        since = f"+{time.monotonic() - self._exercise.injected:.1f} s"
        row.add_row(f"[dim]{entry.at:%H:%M:%S}", f"[dim]{since}", f"[{STYLES.get(entry.kind, 'default')}]{entry.kind}", escape(who + text))
        self._console.print(row)

    def _verdict(self, facts: dict[str, Any]) -> int:
        wrong = scoring.differences(facts, self._fault.truth) + (self._team.differences(self._fault, facts) if self._team else [])
        _print_summary(self._console, facts)
        if self._team:
            self._console.print(escape(self._team.afterwards(self._model)))
        total = time.monotonic() - self._begun
        if wrong:
            for line in wrong:
                self._console.print(f"[bold red]Wrong:[/] {escape(line)}")
            self._console.print(f"[bold red]The outcome is not the known truth of {self._fault.name}.[/] {total:.1f} s in all.")
            return 1
        self._console.print(f"[bold green]As expected:[/] {escape(scoring.in_words(facts))} {total:.1f} s in all.")
        return 0


def _print_summary(console: Console, facts: dict[str, Any]) -> None:
    table = Table(title=f"{facts['incident_id'] or 'No incident'}: what was changed", title_justify="left", show_lines=False)
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


def _check_mlflow(chosen: Fault, options: Options) -> None:
    from mlrunbook.drills.mlflow_team import world

    if options.runtime != "local":
        raise Invalid("--platform mlflow keeps the model server on this machine: leave --runtime out", field="runtime")
    if options.models > 1 and chosen.name != "bad-release":
        raise Invalid("--models 2 plays bad-release: the second team has nothing else that can break", field="models")
    world.check(chosen)


def _team(folder: Path, options: Options) -> MlflowWorld:
    from mlrunbook.drills.mlflow_team.world import MlflowWorld

    return MlflowWorld(folder, models=options.models)


def _settings(folder: Path, runtime: str, team: MlflowWorld | None) -> None:
    """The demo's own settings: its policy, fast alert evaluation, a short lease. Nothing of the caller's own is used."""
    policy = folder / "demo-policy.yaml"
    os.environ |= FAST | {"MLRUNBOOK_STACK": str(folder), "MLRUNBOOK_POLICY": str(policy), "MLRUNBOOK_RUNTIME": runtime}
    if team:
        os.environ |= team.env
    if runtime != KUBERNETES:
        policy.write_text(POLICY + (team.policy if team else ""))
        return
    from mlrunbook.drills.simulator import cluster_node

    policy.write_text(POLICY + cluster_node.POLICY)
    os.environ["MLRUNBOOK_KUBE_NAMESPACE"] = f"mlrunbook-demo-{secrets.token_hex(3)}"


@contextlib.contextmanager
def _serving(stack: Stack, runtime: str, console: Console) -> Iterator[None]:
    """On a cluster: the model's objects there, which the model server of this machine obeys."""
    if runtime != KUBERNETES:
        yield
        return
    from mlrunbook.drills.simulator.cluster_node import ClusterNode

    wait_until_served(stack)
    config = Settings(data_dir=stack.data, model_server_url=stack.env()["MLRUNBOOK_MODEL_SERVER_URL"])
    with ClusterNode(config, os.environ["MLRUNBOOK_KUBE_NAMESPACE"]) as node:
        console.print(f"  Serving objects in the cluster: [cyan]kubectl -n {node.namespace} get deploy,pods,svc,cm,netpol[/]")
        yield


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="mlrunbook-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
