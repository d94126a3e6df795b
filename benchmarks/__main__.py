"""Run every benchmark, or the ones named: `make bench ARGS=intake`. Some have options: `make bench ARGS="promises --help"`."""

from __future__ import annotations

import importlib
import sys

ALL = ("intake", "lists", "console", "materialize", "candidates", "training", "decisions", "drift")


def main(names: list[str]) -> int:
    if names[:1] == ["promises"]:
        from benchmarks.promises.main import main as promises

        return promises(names[1:])
    if names[:1] == ["real"]:
        from benchmarks.real.main import main as real

        return real(names[1:])
    if {"-h", "--help"} & set(names):
        print(f"{(__doc__ or '').strip()}\nThere are {', '.join(ALL)}, promises, real, warehouse and backtest; each takes minutes.")
        return 0
    if names[:1] == ["warehouse"]:
        from benchmarks.warehouse import main as warehouse

        return warehouse(names[1:])
    if names[:1] == ["backtest"]:
        from benchmarks.backtest import main as backtest

        return backtest(names[1:])
    unknown = [name for name in names if name not in ALL]
    if unknown:
        print(
            f"there is no benchmark {unknown[0]!r}; choose from {', '.join(ALL)}, promises, real, warehouse and backtest", file=sys.stderr
        )
        return 2
    for name in names or ALL:
        importlib.import_module(f"benchmarks.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
