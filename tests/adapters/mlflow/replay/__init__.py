"""Replay by MLflow."""
