"""Commands in Markdown: what a reader is told to type, and what the page says will be printed."""

import re
from dataclasses import dataclass

SHELL = ("", "bash", "sh", "shell", "console")  # output alone belongs into a text block
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_EXIT = re.compile(r"#\s*exit code (\d+)\s*$")


@dataclass(frozen=True, slots=True)
class Command:
    """One command of a page.

    1. In a ``console`` block, lines after ``$ `` are commands and the rest is what they print; in a ``bash`` block, or
       one without a language, every line is a command. A backslash at the end continues a command.
    2. ``prints`` is compared when the page shows any output; ``...`` stands for anything, alone on a line for any
       number of lines.
    3. A trailing comment ``# exit code 1`` says that the command fails on purpose.
    4. A ``python`` block is one command, run as a script.
    """

    text: str
    language: str
    prints: str = ""

    @property
    def exit_code(self) -> int:
        found = _EXIT.search(self.text)
        return int(found[1]) if found else 0

    def printed(self, output: str) -> bool:
        """Whether ``output`` is what the page says."""
        lines = [re.escape(line.rstrip()).replace(re.escape("..."), ".*") for line in self.prints.splitlines()]
        pattern = "".join("(.*\n)*?" if line == ".*" else f"{line}[ \t]*\n" for line in lines)
        return not lines or re.fullmatch(pattern, output.rstrip() + "\n") is not None


def commands(page: str) -> list[Command]:
    """Every command of a Markdown page, in order."""
    found: list[Command] = []
    for language, body in _FENCE.findall(page):
        if language == "python":
            found.append(Command(body, language))
        elif language in SHELL:
            prompted = language == "console"
            found.extend(_shell(body, prompted))
    return found


def _shell(body: str, prompted: bool) -> list[Command]:
    found: list[Command] = []
    text, prints = "", []
    continued = False
    for line in body.splitlines():
        starts = line.startswith("$ ") if prompted else bool(line.strip()) and not line.startswith("#")
        if continued:
            text += "\n" + line.removeprefix("> ")
        elif starts:
            if text:
                found.append(Command(text, "shell", "\n".join(prints)))
            text, prints = line.removeprefix("$ "), []
        elif prompted:
            prints.append(line)
        continued = bool(text) and not prints and text.endswith("\\")
    if text:
        found.append(Command(text, "shell", "\n".join(prints).strip("\n")))
    return found
