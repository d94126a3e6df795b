"""The command line, one file a command group. May import everything below; imports that cost time stay inside the commands."""
