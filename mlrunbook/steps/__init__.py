"""The runbook's steps as plain functions: read the store, do what is not recorded, record it.

Each may be called again at any moment, by any process; what is done returns at once. `tasks/` gives them retries and run names.
"""
