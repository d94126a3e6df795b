"""The incident store: one file a table. May import base and domain."""
