"""Alerts in: one file a sender's format, proof and parsing. May import what the gateway may."""
