"""Everything on one machine: the stack and PostgreSQL. May import response, adapters, store, base and domain."""
