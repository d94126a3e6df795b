"""What is done to an incident, by step of the runbook: read the store, do what is not recorded, record it.

Each may be called again at any moment, by any process; what is done returns at once. `tasks/` gives them retries and run names.
May import adapters.reports, store, base, ports and domain.
"""
