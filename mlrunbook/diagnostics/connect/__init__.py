"""`mlrunbook connect`: look at what a team has, guess how it fits the policy, write it down, and see later whether it still does. Read-only
but for the policy file."""
