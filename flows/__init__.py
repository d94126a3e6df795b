"""The runbook. Start reading at `flows/incident.py`."""
