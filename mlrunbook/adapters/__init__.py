"""The outside world behind the ports of `mlrunbook.ports`. May import base, ports and domain."""
