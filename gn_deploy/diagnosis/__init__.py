"""Why parity broke: where two computations part, which setting is at fault, who is right, and a small model of it."""
