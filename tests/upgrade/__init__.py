"""Data and policy of an older version, and today's code."""
