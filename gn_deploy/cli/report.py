"""report: show a report that was written earlier, and say what changed between two of them."""

from pathlib import Path
from typing import Annotated

import typer

from gn_deploy.cli.base import Answer, Json, terminal
from gn_deploy.errors import ExitCode, InputError

File = Annotated[Path, typer.Argument(metavar="REPORT", help="report.json, or the folder it was written into.")]


def show(
    report: File,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write the page again, from the JSON alone.")
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write junit.xml again.")] = None,
    json: Json = False,
) -> Answer:
    """Show a report as it was shown when it was made. Exit code 0 whatever its verdict: nothing is judged here."""
    from gn_deploy.graph.atomic import atomic, check_place
    from gn_deploy.reports import REPORTS
    from gn_deploy.reports.read import read
    from gn_deploy.reports.text import show as print_report

    console = terminal(json)
    if html is not None and junit is not None and html.resolve() == junit.resolve():
        raise InputError(f"--html and --junit are both '{html}'", "name two files")
    wanted = {path: name for path, name in ((html, "html"), (junit, "junit")) if path is not None}
    for path in wanted:
        check_place(path)
    read_back = read(report)
    print_report(read_back, console)
    texts = [REPORTS.require(name).render(read_back) for name in wanted.values()]
    with atomic(*wanted) as files:
        for file, text in zip(files, texts, strict=True):
            file.write(text.encode("utf-8"))
    for path in wanted:
        console.print(f"wrote {path}")
    return Answer(read_back.to_dict(), ExitCode.OK, json)


def diff(
    before: Annotated[Path, typer.Argument(metavar="A", help="The report before: report.json or its folder.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="The report after: report.json or its folder.")],
    json: Json = False,
) -> Answer:
    """Say what changed from report A to report B: verdicts, errors, versions, precision.

    Exit code 0 when nothing got worse, 1 when something did, 2 for a bad file.

    Worse: a graver verdict; what held and is no longer judged; a broken error
    that more than doubled; a new site that is broken; coarser precision; a
    task below its earlier interval; fewer seeded faults noticed. Not worse:
    an error that grew inside its bound, another version.
    """
    from gn_deploy.reports.difference import difference
    from gn_deploy.reports.difference_text import show as print_difference
    from gn_deploy.reports.read import read

    found = difference(read(before), read(after))
    print_difference(found, terminal(json))
    return Answer(found.to_dict(), ExitCode.PARITY_BROKEN if found.worse else ExitCode.OK, json)
