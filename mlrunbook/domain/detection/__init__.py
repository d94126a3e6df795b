"""Step 1: alert rules, signals, severity, silences, flapping. May import investigation's siblings below: review, communication, evaluation,
policy.
"""
