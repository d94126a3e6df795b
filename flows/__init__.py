"""The runbook. Start reading at `flows/incident.py`. May import tasks and the types of domain."""
