"""The serving runtime and the training command on this machine. May import base, ports and domain."""
