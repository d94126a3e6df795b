"""The fleet simulator and its faults. May import local, base and domain."""
