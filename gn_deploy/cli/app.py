"""The command line: its verbs, and how every ending becomes an exit code and at most two lines."""

import errno
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gn_deploy import __version__
from gn_deploy.cli import build, demo, doctor, export, inspect, lower, matrix, parity, plugin, report
from gn_deploy.cli.base import Answer, Verb, terminal
from gn_deploy.errors import ExitCode, GnDeployError, InputError, UnavailableError

VERBS: tuple[Callable[..., Answer], ...] = (
    doctor.doctor,
    inspect.inspect,
    export.export,
    lower.lower,
    build.build,
    parity.parity,
    matrix.matrix,
    demo.demo,
)
GROUPS: dict[str, tuple[str, tuple[Callable[..., Answer], ...]]] = {
    "report": ("Show a report written earlier, or what changed between two.", (report.show, report.diff)),
    "plugin": ("Build the TensorRT plugin's library, or say what one holds.", (plugin.build, plugin.info)),
}
"""Verbs that have verbs of their own: name -> what it is for, and those."""


class Verbs(TyperGroup):
    """The list of verbs, which suggests the nearest one for a name it does not have."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args or ["--help"])

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=lambda name: name in GROUPS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            near = get_close_matches(args[0], self.commands, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(self.list_commands(ctx))}"
            typed = " ".join([*ctx.command_path.split()[1:], args[0]])
            raise InputError(f"unknown command '{typed}'", hint)
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Verbs,
    name="gn-deploy",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _verb in VERBS:
    app.command(_verb.__name__, cls=Verb)(_verb)
for _name, (_help, _verbs) in GROUPS.items():
    _group = typer.Typer(cls=Verbs, name=_name, help=_help)
    for _verb in _verbs:
        _group.command(_verb.__name__, cls=Verb)(_verb)
    app.add_typer(_group)


def _version(asked: bool) -> None:
    if asked:
        print(f"gn-deploy {__version__}")
        raise typer.Exit


@app.callback()
def gn_deploy(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; also GN_DEPLOY_DEBUG=1.")
    ] = False,
) -> None:
    """Take a model that contains Group Normalization to the runtime it ships on, and prove that nothing changed.

    Exit codes: 0 done, 1 parity broken, 2 bad input, 3 not available here, 70 our bug.
    """


def main() -> None:
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever called: what goes there is lost, the work goes on
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 -- for as long as the process lives
    if not _debugging(sys.argv):
        warnings.simplefilter("ignore")  # other people's deprecations are nothing a user can act on
        logging.disable(logging.WARNING)
    sys.exit(run(sys.argv[1:]))


def _debugging(args: Sequence[str]) -> bool:
    return "--debug" in args or os.environ.get("GN_DEPLOY_DEBUG", "0") not in ("", "0")


def run(args: Sequence[str]) -> int:
    """Run one command line and return its exit code; whatever happens, at most two lines and no traceback."""
    command = typer.main.get_command(app)
    try:
        if "" in args:
            raise InputError("an argument is empty", "an unset shell variable gives one: check the command line")
        with command.make_context("gn-deploy", [arg for arg in args if arg != "--debug"] or ["--help"]) as context:
            answer: Answer | None = command.invoke(context)
        if answer is not None and answer.json:
            _print(answer.document)
        return answer.exit_code if answer is not None else ExitCode.OK
    except typer.Exit as done:
        return done.exit_code
    except SystemExit as done:
        if isinstance(done.__context__, BrokenPipeError):  # rich's way of saying that the help's reader has gone
            return ExitCode.OK
        raise
    except (KeyboardInterrupt, typer.Abort):
        print("interrupted: nothing half-written is left behind", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except Exception as error:
        if _debugging(args):
            traceback.print_exc()
        ending = _ending(error)
        _say(ending.message, ending.hint or f"'{_command(args)} --help' says what is expected here")
        return ending.exit_code


def _command(args: Sequence[str]) -> str:
    """The command of a command line: program, verb, and the verb's own verb."""
    words = [arg for arg in args if not arg.startswith("-")]
    verb = words[:1] if words and words[0] in {*GROUPS, *(v.__name__ for v in VERBS)} else []
    mine = {v.__name__ for v in GROUPS[verb[0]][1]} if verb and verb[0] in GROUPS else set()
    return " ".join(["gn-deploy", *verb, *(word for word in words[1:2] if word in mine)])


class InternalError(GnDeployError):
    """Anything nobody foresaw."""

    exit_code = ExitCode.BUG


def _ending(error: Exception) -> GnDeployError:
    """What a user is told about an error."""
    if isinstance(error, UnavailableError) and not error.hint:
        return UnavailableError(error.message, "gn-deploy doctor shows what this machine has")
    if isinstance(error, GnDeployError):
        return error
    if isinstance(error, MemoryError):
        return InputError(
            "the model does not fit into this machine's memory", "close other programs, or use a larger machine"
        )
    if isinstance(error, OSError) and error.errno in _OS_HINTS:
        where = f": '{error.filename}'" if error.filename else ""
        return InputError(f"{error.strerror or error}{where}", _OS_HINTS[error.errno])
    if hasattr(error, "format_message"):  # a usage error of typer, or of click under older versions of typer
        context = getattr(error, "ctx", None)
        return InputError(
            error.format_message().rstrip("."), f"see '{context.command_path if context else 'gn-deploy'} --help'"
        )
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return InternalError(
        f"a bug in gn_deploy, not in your model: {what}",
        "run the same command with --debug and report what it prints, with the model if you can",
    )


_FULL = "the disk or the quota is full: free space, or write to another disk"
_CLOSED = "choose a place where you may read and write"
_OS_HINTS = {
    errno.ENOENT: "check the path",
    errno.EISDIR: "name a file, not a folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "a file of that name is in the way",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
    errno.EROFS: _CLOSED,
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EPIPE: "the program that read the output has gone",
}


def _say(message: str, hint: str) -> None:
    """Two lines on stderr, each really one line whatever the text holds."""
    from rich.text import Text

    from gn_deploy.reports.text import plain

    console = terminal()
    with suppress(OSError):  # stderr itself may be what is full; the exit code still tells
        console.print(Text.assemble(("error: ", "bold red"), plain(" ".join(message.split()))), soft_wrap=True)
        console.print(Text.assemble(("hint: ", "bold"), plain(" ".join(hint.split()))), soft_wrap=True)


def _print(document: dict[str, Any]) -> None:
    from gn_deploy.reports.as_json import dumps

    try:
        sys.stdout.buffer.write(dumps(document).encode("utf-8"))
        sys.stdout.buffer.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that the interpreter does not try again while it ends
        if not isinstance(error, BrokenPipeError):  # a reader that had enough is no failure of the verb
            raise
