"""Step 6: the review and its action items. May import investigation (what prevents a cause) and what lies below."""
