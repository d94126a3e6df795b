"""Decisions on real tables: `python -m benchmarks real --data DIR [--quick] [--seed S]`. See docs/how-to/benchmark-real.md."""
