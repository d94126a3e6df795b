"""The regular audits: gather, judge, record, open what breaks a limit. May import investigation and what lies below."""
