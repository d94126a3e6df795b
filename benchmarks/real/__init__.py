"""Decisions on real tables: `python -m benchmarks real --data DIR [--quick] [--seed S] [--models N] [--windows N]`. See docs/how-to/benchmark-real.md."""
