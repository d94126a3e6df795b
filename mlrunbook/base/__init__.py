"""What everything stands on: settings, database, tokens, web, HTML pages, processes, files. May import domain.errors, domain.policy for the
policy file, and how domain.communication makes a text one printable line.
"""
