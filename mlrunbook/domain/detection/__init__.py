"""Step 1: alert rules, signals, severity, silences, flapping. May import review, investigation and what lies
below.
"""
