"""The serving runtime on a Kubernetes cluster. May import base, ports and domain."""
