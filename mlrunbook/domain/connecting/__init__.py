"""What `mlrunbook connect` makes of what it sees: guesses with their reasons, and how the file differs from the world. Pure."""
