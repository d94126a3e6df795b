"""The schema's history, run by Alembic under a lock. Imports base.db alone."""
