"""Pages that scripts write parts of: Markdown tables, and what stands between the two marker lines of a block."""

from collections.abc import Sequence
from pathlib import Path

from gn_deploy.errors import InputError
from gn_deploy.graph.atomic import atomic

BEGIN, END = "<!-- {} -->", "<!-- end of {} -->"


def blocks(text: str) -> list[str]:
    """Names, in order."""
    before, after = BEGIN.split("{}")
    told = [line[len(before) : -len(after)] for line in text.splitlines() if line.startswith(before)]
    return [name for name in told if not name.startswith("end of ")]


def block(text: str, name: str) -> str:
    """What is between the markers, without the line ends. Raises InputError where these are missing."""
    return _parts(text, name)[1].strip("\n")


def replaced(text: str, name: str, body: str) -> str:
    """``text`` with ``body`` in the block. Raises InputError where its markers are missing."""
    before, _, after = _parts(text, name)
    return f"{before}{BEGIN.format(name)}\n{body}\n{END.format(name)}{after}"


def update(page: Path, name: str, body: str, *, check: bool = False) -> bool:
    """Whether the block was ``body`` already; it is afterwards, unless ``check``. Raises InputError where the page
    cannot be read or written, or has no such block."""
    try:
        text = page.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read '{page}': {error}") from None
    wanted = replaced(text, name, body)
    if wanted != text and not check:
        with atomic(page) as (file,):
            file.write(wanted.encode())
    return wanted == text


def table(rows: Sequence[Sequence[object]]) -> str:
    """Markdown; the first row is the header."""
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([lines[0], f"|{'---|' * len(rows[0])}", *lines[1:]])


def _parts(text: str, name: str) -> tuple[str, str, str]:
    """Before, between and after the markers."""
    begin, end = BEGIN.format(name), END.format(name)
    before, found, rest = text.partition(begin)
    body, closed, after = rest.partition(end)
    if not (found and closed):
        raise InputError(f"the page has no lines {begin} and {end}", "put them where the text belongs")
    return before, body, after
