"""Step 3: findings, causes, diagnosis. May import review and what lies below."""
