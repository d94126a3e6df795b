"""The fleet simulator and its faults. May import local, adapters, base and domain."""
