"""Latency, errors and traffic as a team's Prometheus has them."""
