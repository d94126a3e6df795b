"""Step 3: the checks, the diagnosis, the rollback target, similar incidents. May import detection and what lies below."""
