"""Speed and memory, printed by hand-run commands; the default tests only check that what they measure is right."""
