"""Demo, game day, fault injection, scoring. May import local, response, store, base and domain."""
