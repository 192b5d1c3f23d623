"""The sections of tests/parity/README.md, one file each: ``section()`` measures and returns Markdown.

A new one is a file NAME.py here and a pair of lines ``<!-- NAME -->``, ``<!-- end of NAME -->`` in the README, with
its explanation in plain English before them; the script's docstring says how long it takes. Figures are rounded so far
that they do not change from run to run, and ``section()`` ends with ``versions(...)`` of the packages that they
depend on.
"""

from importlib.metadata import version


def percent(part: int, whole: int) -> str:
    """Rounded down, so that 100 means all; a dash where there is nothing to count."""
    return f"{100 * part // whole}" if whole else "-"


def versions(*packages: str) -> str:
    """The last line of a section, as the tests look for it."""
    return f"Measured with {', '.join(f'{name} {version(name)}' for name in packages)}."
