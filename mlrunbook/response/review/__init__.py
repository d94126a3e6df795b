"""Step 6: closing, the review, its reminders and action items. May import lifecycle and what lies below."""
