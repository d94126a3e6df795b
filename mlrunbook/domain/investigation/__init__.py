"""Step 3: findings, causes, diagnosis. May import communication and what lies below."""
