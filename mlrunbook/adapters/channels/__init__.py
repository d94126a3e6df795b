"""Messages and pages: Slack and whatever Apprise knows, PagerDuty, mail. May import base, ports and domain."""
