"""Prefect tasks: one effect or one read each, retried by the one policy in `_policy`, named for the run page."""
