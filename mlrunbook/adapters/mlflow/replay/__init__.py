"""Logged requests scored by versions of MLflow's registry, each in a process of its own that has no secrets, no network and limits."""
