"""A team's own history, judged look by look as the runbook would have judged it live."""
