"""Prefect's API: starting and resuming runs, deployments. May import base, ports and domain."""
