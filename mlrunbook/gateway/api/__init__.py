"""The incident API: one router a file, with its schemas. May import what the gateway may."""
