"""Proof that nothing changed: inputs made to expose bugs, a derived tolerance, a verdict for every site and output."""
