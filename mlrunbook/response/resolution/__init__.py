"""Step 4: the plan, the paths, recovery. May import containment and what lies below."""
