"""What everything stands on: settings, database, tokens, web, processes, files. May import domain.errors, and domain.policy for the
policy file.
"""
