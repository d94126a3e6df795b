"""Step 5: messages, escalation, updates, regulatory clocks. May import evaluation, policy and the nouns."""
