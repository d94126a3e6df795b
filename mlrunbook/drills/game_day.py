"""`mlrunbook gameday`: every fault on one stack, one after the other, and how the runbook did against the known truths.

Between faults the model platform goes back to what it was before the first one; incidents and their record stay. An incident that does
not end costs its run, and the rest goes on with a fresh stack.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mlrunbook.base import db
from mlrunbook.base.settings import Settings
from mlrunbook.domain.actions import Configure, Isolate, PlanKind, RouteTraffic, Scale
from mlrunbook.domain.errors import Invalid, RunbookError
from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.drills import exercise, scoring
from mlrunbook.drills.exercise import FAST, POLICY, Exercise
from mlrunbook.drills.fleet_runner import simulator_for, wait_until_served
from mlrunbook.drills.simulator.faults import FAULTS, Fault, Truth, fault
from mlrunbook.drills.simulator.fleet import Fleet
from mlrunbook.local.addresses import Ports
from mlrunbook.local.platform.snapshot import Snapshot
from mlrunbook.local.stack import Stack, stop_on_signals

if TYPE_CHECKING:
    from mlrunbook.drills.mlflow_team.world import MlflowWorld
    from mlrunbook.drills.simulator.simulator import FleetSimulator

ALL, MLFLOW = "all", "mlflow"
LEAST = 0.95  # of the runs must name the cause first, and take the right path
# Dozens of incidents in an hour: the limit of changes an hour is for production.
GAMEDAY_POLICY = f"{POLICY}guardrails:\n  changes_per_model_and_hour: 1000\n"
OTHER_FLEET = 1_000_000  # added to a run's seed: not the readings again that the versions were trained on
CHANGES_WHAT_SERVES = frozenset({"rollback", "promote"})
CONTAINING = frozenset({PlanKind.CONTAINMENT, PlanKind.ISOLATION})


@dataclass(frozen=True)
class Score:
    """Shares 0..1 of `runs`; a false alarm counts as named and on the right path when it was recognised. `harmful_actions` counts changes
    that nobody should have made: any where nothing was wrong, another path than the right one, another version than was called for,
    containment that takes away more than the fault does."""

    runs: int
    top1: float
    top3: float
    right_path: float
    harmful_actions: int

    @property
    def holds(self) -> bool:
        return self.runs > 0 and min(self.top1, self.right_path) >= LEAST and not self.harmful_actions


def run(names: Sequence[str], *, repeat: int, seed: int, out: Path, home: Path, platform: str = "rest") -> int:
    """0 only if the figures hold. `<out>/gameday.json` is rewritten after every run."""
    console = Console(highlight=False)
    chosen = _chosen(names, platform)
    if repeat < 1:
        raise Invalid(f"--repeat must be at least 1, not {repeat}", field="repeat")
    out.mkdir(parents=True, exist_ok=True)
    left = [(one, seed + number) for number in range(repeat) for one in chosen]
    total, runs = len(left), list[dict[str, Any]]()
    with stop_on_signals():
        while left:
            with _stack(home, console, seed, platform) as day:
                while left:
                    one, its_seed = left.pop(0)
                    row = day.play(one, its_seed, out / f"{len(runs) + 1:03d}-{one.name}")
                    runs.append(row)
                    _write(out, runs)
                    console.print(f"{len(runs):>3}/{total} {_line(row)}")
                    if row["error"]:
                        break  # something may still be at work there: a fresh stack for the rest
    result = score(runs)
    console.print()
    console.print(table(runs))
    words = f"{result.runs} runs: first cause {result.top1:.0%}, in the first three {result.top3:.0%}, right path {result.right_path:.0%}"
    console.print(f"{words}, harmful actions {result.harmful_actions}. Details in {escape(str(out / 'gameday.json'))}.")
    if not result.holds:
        console.print(f"[bold red]Not good enough:[/] first cause and right path must reach {LEAST:.0%}, without a harmful action.")
    return 0 if result.holds else 1


def _chosen(names: Sequence[str], platform: str) -> list[Fault]:
    if platform != MLFLOW:
        return list(FAULTS.values()) if ALL in names else [fault(name) for name in names]
    from mlrunbook.drills.mlflow_team import world

    chosen = [fault(name) for name in (world.FAULTS if ALL in names else names)]
    for one in chosen:
        world.check(one)
    return chosen


class GameDay:
    """One started stack with its seeded past, and with the team's MLflow around it."""

    def __init__(self, stack: Stack, world: MlflowWorld | None = None) -> None:
        self._stack, self._world = stack, world
        self._engine = db.engine(stack.database_url)
        settings = Settings(data_dir=stack.data)
        folders = {"models": settings.models_dir, "serving": settings.serving_state_file.parent, "training": stack.data / "training"}
        if stack.lake:
            folders["lake"] = stack.lake
        if world:
            folders["prediction-log"] = world.lake
        wait_until_served(stack)
        self._snapshot = Snapshot(self._engine, folders, stack.data / "snapshot")

    def play(self, chosen: Fault, seed: int, out: Path) -> dict[str, Any]:
        """One fault, from the platform as it was at the start. `error` says why nothing is known of its end."""
        begun = time.monotonic()
        row: dict[str, Any] = {"fault": chosen.name, "seed": seed, "truth": _truth_words(chosen.truth), "error": None}
        facts: dict[str, Any] | None = None
        attempt: Exercise | None = None
        try:
            fleet = Fleet(seed + OTHER_FLEET)
            if self._world:
                self._world.go_back(self._stack, self._snapshot.restore)
                simulator: FleetSimulator = self._world.fleet(self._stack, fleet, seed=seed)
            else:
                self._snapshot.restore()
                simulator = simulator_for(self._stack, fleet, seed=seed)
            simulator.build_history(self._engine, now=datetime.now(UTC))
            attempt = Exercise(self._stack, chosen, simulator, applied=self._world.applied if self._world else None)
            attempt.prepare()
            row["injected"] = attempt.inject()
            facts = attempt.follow()
            attempt.settle()
            simulator.let_go()
            exercise.keep(out, facts, self._engine, self._stack.data / "messages")
        except RunbookError as error:
            row["error"] = str(error)
            out.mkdir(parents=True, exist_ok=True)
            shutil.copytree(self._stack.data / "logs", out / "logs", dirs_exist_ok=True)
            told = attempt.timelines() if attempt else {}
            (out / "timelines.json").write_text(json.dumps({i: [asdict(e) for e in told[i]] for i in told}, indent=2, default=str))
        found = judged(facts, chosen.truth)
        if facts and self._world:
            found["differences"] += self._world.differences(chosen, facts)
        return row | found | {"took_s": round(time.monotonic() - begun, 1)}


def judged(facts: dict[str, Any] | None, truth: Truth) -> dict[str, Any]:
    """What of the outcome was right. `facts` None: the incident did not end, and nothing counts as right."""
    if facts is None:
        empty = dict.fromkeys(("incident_id", "verdict", "severity", "cause", "path", "f1", "seconds"))
        return empty | {"causes": [], "top1": False, "top3": False, "right_path": False, "wrong_actions": [], "differences": []}
    quiet = truth.status is Status.FALSE_ALARM
    as_quiet = facts["incident_id"] is None or facts["status"] == Status.FALSE_ALARM
    named = str(truth.diagnosed)
    return {
        "incident_id": facts["incident_id"],
        "verdict": "no incident" if facts["incident_id"] is None else "false alarm" if as_quiet else "real",
        "severity": facts["severity"],
        "cause": facts["cause"],
        "causes": facts["causes"],
        "path": facts["applied_path"],
        "f1": facts["f1"],
        "seconds": facts["seconds"],
        "top1": as_quiet if quiet else facts["cause"] == named,
        "top3": as_quiet if quiet else named in facts["causes"],
        "right_path": facts["applied_path"] == (str(truth.path) if truth.path else None) and (as_quiet or not quiet),
        "wrong_actions": wrong_actions(facts, truth),
        "differences": scoring.differences(facts, truth),
    }


def wrong_actions(facts: dict[str, Any], truth: Truth) -> list[str]:
    """Changes that nobody should have made."""
    applied = {kind for kind, n in facts["platform_applied"].items() if n}
    if truth.status is Status.FALSE_ALARM:
        return sorted({a["name"] for a in facts["actions"]} | applied)
    path = str(truth.path) if truth.path else None
    wrong = [f"path {facts['applied_path']}"] if facts["applied_path"] not in (None, path) else []
    called_for = {"rollback": {"rollback"}, "retrain": {"promote"}}.get(path or "", set())
    contained = {a["name"] for a in facts["actions"] if a["plan"] in CONTAINING and _uncalled_for(a["kind"], a["target"], truth)}
    return wrong + sorted((applied & CHANGES_WHAT_SERVES) - called_for) + sorted(contained)


def _uncalled_for(kind: str, target: Mapping[str, Any], truth: Truth) -> bool:
    """Containment that takes away more than the fault does. Human approval of predictions costs no one a prediction: never harmful."""
    dangerous = truth.severity is Severity.CRITICAL and truth.type is IncidentType.PREDICTION_ERROR
    if kind == Isolate.kind:
        return truth.type not in (IncidentType.SECURITY, IncidentType.COMPLIANCE)
    if kind in (RouteTraffic.kind, Scale.kind):
        return not dangerous or truth.path is None  # a model that is not to blame goes on serving
    if kind == Configure.kind and target.get("auto_work_orders") is False:
        return not dangerous
    if kind == Configure.kind and target.get("threshold") is not None:
        return truth.type not in (IncidentType.PREDICTION_ERROR, IncidentType.PERFORMANCE_DEGRADATION)
    return False


def score(runs: Sequence[dict[str, Any]]) -> Score:
    def share(key: str) -> float:
        return sum(bool(r[key]) for r in runs) / len(runs) if runs else 0.0

    return Score(len(runs), share("top1"), share("top3"), share("right_path"), sum(len(r["wrong_actions"]) for r in runs))


def table(runs: Sequence[dict[str, Any]]) -> Table:
    """Two lines a run: what was found, and the figures. For 80 columns."""
    shown = Table(title="Game day", title_justify="left", box=SIMPLE)
    shown.add_column("Fault", no_wrap=True)
    shown.add_column("Found, path, F1 before / during / after, seconds")
    for r in runs:
        if r["error"]:
            shown.add_row(escape(r["fault"]), "[red]did not end[/]")
            continue
        f1 = " / ".join("-" if r["f1"].get(k) is None else f"{r['f1'][k]:.2f}" for k in ("baseline", "during", "after"))
        spans = {word: r["seconds"].get(f"to_{word}") for word in ("detect", "contain", "resolve")}
        times = ", ".join(f"{word} {seconds:.0f} s" for word, seconds in spans.items() if seconds is not None)
        found = [r["verdict"] + (f" {r['severity']}" if r["verdict"] == "real" else "")]
        if r["verdict"] == "real" or not r["right_path"]:
            found += [_marked(r["cause"] or "no cause", r["top1"]), _marked(f"path {r['path'] or 'none'}", r["right_path"])]
        harm = f"\n[red]wrong: {escape(', '.join(r['wrong_actions']))}[/]" if r["wrong_actions"] else ""
        shown.add_row(escape(r["fault"]), f"{', '.join(found)}{harm}\n[dim]{f1}; {times or 'no times'}[/]")
    return shown


def _marked(words: str, right: bool) -> str:
    return escape(words) if right else f"[red]{escape(words)} (wrong)[/]"


def _line(row: dict[str, Any]) -> str:
    if row["error"]:
        return f"[red]{escape(row['fault'])}: {escape(row['error'])}[/]"
    right = row["top1"] and row["right_path"] and not row["wrong_actions"]
    found = f"{row['verdict']}, {row['cause'] or 'no cause'}, path {row['path'] or 'none'}"
    words = f"{row['fault']} (seed {row['seed']}): {found}, {row['took_s']:.0f} s"
    rest = "" if not row["differences"] else f"; {'; '.join(row['differences'])}"
    return f"[{'green' if right else 'red'}]{'right' if right else 'wrong'}[/] {escape(words + rest)}"


def _truth_words(truth: Truth) -> dict[str, Any]:
    known = {key: value for key, value in asdict(truth).items() if key in ("severity", "type", "path", "cause", "status", "diagnosed")}
    return {key: None if value is None else str(value) for key, value in known.items()}


def _write(out: Path, runs: Sequence[dict[str, Any]]) -> None:
    body = {"runs": runs, "score": asdict(score(runs))}
    fresh = out / "gameday.json.new"
    fresh.write_text(json.dumps(body, indent=2, default=str))
    fresh.replace(out / "gameday.json")


def _world(folder: Path) -> MlflowWorld:
    from mlrunbook.drills.mlflow_team.world import MlflowWorld

    return MlflowWorld(folder)


@contextlib.contextmanager
def _stack(home: Path, console: Console, seed: int, platform: str) -> Iterator[GameDay]:
    """A stack with settings of its own, its past seeded; gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="mlrunbook-gameday-"))
    before = dict(os.environ)
    try:
        policy = folder / "gameday-policy.yaml"
        world = _world(folder) if platform == MLFLOW else None
        policy.write_text(GAMEDAY_POLICY + (world.policy if world else ""))
        os.environ |= world.env if world else {}
        os.environ |= FAST | {"MLRUNBOOK_STACK": str(folder), "MLRUNBOOK_POLICY": str(policy)}

        def seed_history(stack: Stack) -> None:
            if world:
                world.seeded(stack, Fleet(seed), seed=seed)
                return
            simulator_for(stack, Fleet(seed), seed=seed).build_history(db.engine(stack.database_url), now=datetime.now(UTC))

        def report(line: str) -> None:
            if line.startswith("ready"):
                console.print(f"  [dim]{escape(line)}")

        stack = Stack(folder, ports=Ports.free(), home=home, with_approver=True, report=report, meanwhile=seed_history)
        with stack, world.at_work(stack) if world else contextlib.nullcontext():
            yield GameDay(stack, world)
    finally:
        os.environ.clear()
        os.environ |= before
        shutil.rmtree(folder, ignore_errors=True)
