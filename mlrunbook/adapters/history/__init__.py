"""A team's own log of predictions and outcomes, read from a file."""
