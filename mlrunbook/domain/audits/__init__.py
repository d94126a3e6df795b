"""The runbook's "Regular Audits": weekly, monthly, quarterly, annual. Each line of them is a `section.Section`. May import review
and what lies below.
"""
