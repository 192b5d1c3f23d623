"""Models that other tools have rewritten before us, or after us."""
