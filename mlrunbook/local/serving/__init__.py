"""The model server in the box. May import adapters, base and domain."""
