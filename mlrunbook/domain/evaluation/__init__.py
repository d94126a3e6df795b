"""Statistics: performance, drift, fairness, outcomes, versions compared. May import policy and the nouns."""
