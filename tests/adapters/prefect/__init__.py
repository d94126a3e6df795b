"""The worker, the work pool and the process of a run, on a real Prefect server."""
