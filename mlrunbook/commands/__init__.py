"""The command line, one file a command group. Imports that cost time stay inside the commands."""
