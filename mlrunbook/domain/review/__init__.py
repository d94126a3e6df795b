"""Step 6: the review and its action items. May import communication and what lies below."""
