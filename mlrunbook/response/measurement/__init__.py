"""Metrics, recent changes and the feature store as one incident sees them. May import communication, run and what lies below."""
