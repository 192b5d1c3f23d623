"""The command line: one file per verb, and ``app`` which turns every ending into an exit code."""
