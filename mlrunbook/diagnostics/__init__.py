"""doctor and the platform contract: read-only. May import adapters, base, ports and domain."""
