"""Step 4: the plan of each path, retraining, recovery. May import containment and what lies below."""
