"""Step 5: pages, notifications, escalation, regulatory clocks, hand-over. May import world and what lies below."""
