"""The paths of the platform's API, one file a noun; `api` puts them together. May import
adapters, base and domain.
"""
