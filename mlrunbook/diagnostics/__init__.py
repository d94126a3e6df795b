"""doctor and the platform contract: read-only. May import adapters, store, base, ports and domain."""
