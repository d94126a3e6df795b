"""The team's rules as one validated value, by section. May import the nouns."""
