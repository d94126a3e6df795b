"""Demo, game day, fault injection, scoring. May import local, response, adapters, store, base and domain."""
