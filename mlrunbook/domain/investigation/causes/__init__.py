"""The causes an incident may have: one definition each, by family; `registry.py` lists them. To add a cause, copy a definition. May
import what the folder above may.
"""
