"""Take alerts in, open, join, reopen, silences, flapping, severity changes, runs and leases, post-close check. May import measurement,
execution and what lies below.
"""
