"""Metrics, recent changes and the feature store as one incident sees them. May import execution and what lies below."""
