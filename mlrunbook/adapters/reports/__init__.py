"""What is rendered: audit pages, drift reports, charts, Prometheus rules. May import base, ports and domain."""
