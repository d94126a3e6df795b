"""Prefect tasks: one effect or one read each, retried by the one policy in `_retry`, named for the run page. One file a step of the
runbook.
"""
