"""The ML incident-response runbook as Prefect flows."""

__version__ = "0.1.0"
