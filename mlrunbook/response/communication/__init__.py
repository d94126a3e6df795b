"""Step 5: pages, notifications, escalation, regulatory clocks, hand-over. May import run and world."""
