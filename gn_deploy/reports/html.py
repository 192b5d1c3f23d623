"""report.html: the whole comparison as one offline page, verdict first (needs jinja2, the extra [html])."""

from functools import cache
from importlib.resources import files
from typing import Any

from gn_deploy.errors import UnavailableError
from gn_deploy.parity.end_to_end import PASS_RATIO, WARN_RATIO
from gn_deploy.parity.families import FAMILIES
from gn_deploy.parity.report import ParityReport
from gn_deploy.parity.status import Status
from gn_deploy.reports import bars, causes, curves, plots, sentences, summary
from gn_deploy.reports.advice import next_steps
from gn_deploy.reports.base import ReportFile

MANY_SITES = 24  # rows that are read; of more, only what broke and the worst stand open
TITLES = {
    "broke": "What broke",
    "next": "What to do next",
    "located": "Where it parts",
    "votes": "Who agrees with whom",
    "runtimes": "Runtimes",
    "sites": "GroupNorm sites",
    "errors": "Error over bound",
    "spread": "How the errors spread",
    "groups": "Worst groups",
    "families": "Input families",
    "outputs": "End to end",
    "task": "The task",
    "noticed": "What would be noticed",
    "engines": "Engines",
    "unpaired": "Not compared",
    "notes": "Remarks",
    "again": "See it again",
    "environment": "Environment",
}
"""Anchor -> heading, in the order of the page."""


def render(report: ParityReport) -> str:
    """The page; raises UnavailableError when jinja2 is not installed."""
    scale = plots.Scale.around(value for v in report.sites for value in (*v.cases.values(), summary.error(v)))
    rows = summary.rows(report)
    shown = summary.worst_rows(rows, MANY_SITES)
    drawn: dict[str, Any] = {
        "problems": summary.problems(report),
        "steps": next_steps(report),
        "rows": rows,
        "plots": plots.plots(report, scale),
        "histograms": bars.of_runtimes(report),
        "groups": curves.groups(report),
        "families": (worst := plots.families(report)),
    }
    there = {"broke": drawn["problems"], "next": drawn["steps"], "located": report.located or report.blamed,
             "sites": rows, "errors": drawn["plots"], "spread": drawn["histograms"], "groups": drawn["groups"],
             "families": worst, "runtimes": True, "task": report.tasks, "again": report.command}  # fmt: skip
    return page_of(
        "page.html",
        report=report,
        **drawn,
        shown=shown,
        rest=[row for row in rows if row not in shown],
        columns=list(dict.fromkeys(v.runtime for v in report.sites if v.status is not Status.NOTRUN)),
        exposes={case: FAMILIES[name].exposes for case in worst if (name := case.removeprefix("probe ")) in FAMILIES},
        scale=scale,
        noise_scale=plots.Scale(-1, 3),
        noise_limits=(PASS_RATIO, WARN_RATIO),
        titles=TITLES,
        contents=[(name, title) for name, title in TITLES.items() if there.get(name, getattr(report, name, ()))],
    )


def page_of(template: str, **values: Any) -> str:
    """A template of the folder ``page`` filled in; raises UnavailableError when jinja2 is not installed."""
    try:
        import jinja2  # noqa: F401
    except ImportError:
        raise UnavailableError(
            "report.html needs jinja2, which is not installed", "pip install 'gn-deploy[html]'"
        ) from None
    page: str = _environment().get_template(template).render(s=summary, say=sentences, causes=causes, **values)
    return page.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate in a name has no UTF-8


@cache
def _environment() -> Any:
    import jinja2

    folder = files("gn_deploy.reports").joinpath("page")
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text("utf-8")),
        autoescape=lambda name: True,
        finalize=visible,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def visible(value: Any) -> Any:
    """A name as it is, but for characters that are not seen and act on others: controls, marks that turn the text
    round."""
    if type(value) is not str or value.isprintable():
        return value
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in value)


REPORT = ReportFile("report.html", render)
