"""The one way to change production: approvals, execute, handlers, plans, dry run, approval gate. May import communication,
run and what lies below.
"""
