"""The one way to change production: approvals, execute, handlers, plans, dry run, approval gate. May import communication and what lies
below.
"""
