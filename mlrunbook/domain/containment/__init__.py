"""Step 2: what limits the damage, and evidence first. May import detection and what lies below."""
