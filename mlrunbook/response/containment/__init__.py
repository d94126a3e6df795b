"""Step 2: evidence, containment, emergency actions, breaches. May import investigation and what lies below."""
