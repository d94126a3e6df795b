"""The model platform in the box: registry, prediction log, metrics, alerts, work orders. May import adapters, base and domain."""
