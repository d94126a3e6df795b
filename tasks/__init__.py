"""Prefect tasks: one effect or one read each, retried by the one policy in `_step`, named for the run page. Those of `flows/x.py` are in
`tasks/x.py`; `run`, `plan` and `approval` are shared, `_step` makes a task of a step.
"""
