"""`python -m benchmarks real`: options, the table, the JSON line."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.real import causes, rules
from benchmarks.real.measure import EFFECTIVE_FAILURES, QUICK, WINDOWS, Measured, Size, measure
from benchmarks.real.streams import Pool
from benchmarks.real.tables import BadTable, load_all

MOST_FALSE, MOST_MISSED, MOST_EVER, MOST_RATIO, MOST_DRIFT = 0.01, 0.10, 0.40, 2.0, 0.05


def main(arguments: list[str]) -> int:
    options = _options(arguments)
    if lacking := rules.missing():
        print(f"{' and '.join(lacking)} missing, needed for the comparison: pip install -e '.[dev]'", file=sys.stderr)
        return 2
    began = time.perf_counter()
    try:
        logs = load_all(options.data)
        pools = [Pool.of(log) for log in logs]
    except BadTable as e:
        print(f"cannot run: {e}", file=sys.stderr)
        return 2
    size = QUICK if options.quick else Size(models=options.models, windows=options.windows)
    with multiprocessing.get_context("spawn").Pool(min(options.processes, len(pools))) as workers:
        waiting = [(pool.log.name, workers.apply_async(measure, (pool, size, options.seed))) for pool in pools]
        results = [_done(name, result.get()) for name, result in waiting]
    _print(results)
    injected = {name: causes.figures(found) for name, found in causes.measure_all(options.data, 1 if options.quick else 2, options.seed)}
    causes.show(injected)
    line = {
        "benchmark": "real",
        "tables": {r.name: _rounded(asdict(r)) for r in results},
        "causes": injected,
        "missed": [*(m for r in results for m in missed(r)), *causes.missed(injected)],
        "seconds": round(time.perf_counter() - began, 1),
    }
    print(json.dumps(line))
    return 1 if line["missed"] else 0


def _done(name: str, result: Measured) -> Measured:
    print(f"{name} is measured", file=sys.stderr)
    return result


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks real", description="Decisions on real tables, each described by a small YAML."
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with NAME.yaml files and their tables")
    parser.add_argument("--quick", action="store_true", help="a minute, wide error bars")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--models", type=int, default=Size.models, help="followed for two years, a cell")
    parser.add_argument("--windows", type=int, default=Size.windows, help="unchanged windows, a cell")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1))
    return parser.parse_args(arguments)


def missed(r: Measured) -> list[str]:
    """The figures that are over what is promised."""
    out = [f"{r.name}: {v:.1%} of unchanged windows of {n} called" for n, v in r.windows["ours"].items() if v > MOST_FALSE]
    out += [f"{r.name}: {r.ever:.0%} of unchanged models called in two years"] * (r.ever > MOST_EVER)
    late = r.missed.get("20-50%", 0.0)
    out += [f"{r.name}: {late:.0%} of falls over 20 % missed after {EFFECTIVE_FAILURES} effective failures"] * (late > MOST_MISSED)
    ratio = r.delays.get("20%", {}).get("ratio")
    if r.refused < 0.5 and (ratio is None or ratio > MOST_RATIO):  # else most baselines say that they are too short
        much = "beyond two years" if ratio is None else f"{ratio:.1f} times the tuned CUSUM's"
        out.append(f"{r.name}: delay at 20 % is {much}")
    out += [f"{r.name}: {r.drift['ours']:.0%} of drift reports false"] * (r.drift.get("ours", 0.0) > MOST_DRIFT)
    return out


def _print(results: list[Measured]) -> None:
    table = Table(title="Nothing changed: share of windows called real. A fall of 20 %: rows until it is called")
    columns = (
        *("table", "rule", *(f"n={n}" for n in WINDOWS), *(f"20 %, n={n}" for n in WINDOWS)),
        *("two years", "rarer", "missed", "rows, 50 / 90 %", "ratio", "drift reports"),
    )
    for column in columns:
        table.add_column(column, justify="left" if column in ("table", "rule") else "right")
    for r in results:
        for rule in r.windows:
            table.add_row(*_cells(r, rule))
        table.add_section()
    console = Console(width=190)
    console.print(table)
    for r in results:
        console.print(
            f"{r.name}: {r.rows:,} rows, {r.positive_rate:.1%} failed, F1 {r.f1:.2f}; {r.rows_per_look:.0f} rows a look, {r.looks} looks "
            f"in two years; {r.design_effect:.1f} outcomes count as one; {r.refused:.0%} of baselines too short to prove 20 %"
        )
        if r.left_out:
            console.print(f"  left out: {r.left_out}")
        late = ", ".join(f"{name} {share:.0%}" for name, share in r.missed.items())
        console.print(
            f"  after {r.missed_after_rows:,.0f} rows {r.missed_refused:.0%} of baselines say that they are too short, others missed: "
            f"{late or 'not measured'}; severity right: {_shares(r.severity)}"
        )
        console.print(f"  delays: {_rounded(r.delays)}")
    wrong = [m for r in results for m in missed(r)]
    console.print("not met: " + "; ".join(wrong) if wrong else "every figure is met")


def _cells(r: Measured, rule: str) -> list[str]:
    ours = rule == "ours"
    at_fifth = r.delays.get("20%", {})
    rows = [f"{at_fifth[k]:,.0f}" if at_fifth.get(k) else "-" for k in ("ours", "ours_90")]
    return [
        r.name if ours else "",
        rule,
        *(f"{r.windows[rule][n]:.1%}" for n in WINDOWS),
        *(f"{r.found[rule][n]:.0%}" if rule in r.found else "" for n in WINDOWS),
        f"{r.ever:.0%}" if ours else "",
        f"{r.ever_rarer:.0%}" if ours else "",
        f"{r.missed['20-50%']:.0%}" if ours and "20-50%" in r.missed else "",
        " / ".join(rows) if ours else "",
        f"{at_fifth['ratio']:.2f}" if ours and at_fifth.get("ratio") else "",
        f"{r.drift[rule]:.0%}" if rule in r.drift else "",
    ]


def _shares(of: dict[str, float]) -> str:
    return ", ".join(f"at {k} {v:.0%}" for k, v in of.items()) or "never called"


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return float(f"{value:.4g}") if isinstance(value, float) else value
