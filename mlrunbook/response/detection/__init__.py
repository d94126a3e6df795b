"""Step 1: triage and the monitor. May import lifecycle and what lies below."""
