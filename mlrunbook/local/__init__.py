"""Everything on one machine: the stack and PostgreSQL. May import adapters, base and domain."""
