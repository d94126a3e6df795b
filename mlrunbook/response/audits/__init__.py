"""The regular audits: gather, judge, record, open what breaks a limit. May import containment and what lies below."""
