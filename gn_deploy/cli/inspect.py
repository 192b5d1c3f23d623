"""inspect: every GroupNorm in a file, what it computes, where it came from, and what a target would make of it."""

from pathlib import Path
from typing import Annotated

import typer

from gn_deploy.cli.base import Answer, Json, site_rows, site_table, terminal
from gn_deploy.targets import Target


def inspect(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file.")],
    target: Annotated[str, typer.Option("--target", "-t", help="Whose decision to show for each site.")] = "onnx",
    why: Annotated[bool, typer.Option("--why", help="Also show what looked like a GroupNorm and is none.")] = False,
    json: Json = False,
) -> Answer:
    """Show every GroupNorm in MODEL; nothing is written."""
    wanted = Target.parse(target)

    from gn_deploy import sites
    from gn_deploy.graph.io import load
    from gn_deploy.passes.lower import decide
    from gn_deploy.reports.summary import plural
    from gn_deploy.reports.text import table

    console = terminal(json)
    with console.status("reading"):
        loaded = load(model)
        found = sites.find(loaded)
        decisions = decide(found.sites, wanted, loaded)
    console.print(f"{model}: {plural(len(found.sites), 'GroupNorm')}, opset {loaded.opset_imports.get('')}")
    if decisions:
        console.print(site_table(decisions, f"{wanted} takes it as"))
    if found.near_misses and not why:
        console.print(f"{plural(len(found.near_misses), 'place')} looked like a GroupNorm; --why shows the reasons")
    if found.near_misses and why:
        misses = sorted(found.near_misses, key=lambda miss: -miss.progress)
        console.print(table("\nNear misses", ("node", "form", "reason"), [[m.node, m.form, m.reason] for m in misses]))
    document = {
        "model": str(model),
        "opset": loaded.opset_imports.get(""),
        "target": str(wanted),
        "sites": site_rows(decisions),
        "near_misses": [
            {"node": m.node, "form": m.form, "reason": m.reason, "progress": m.progress} for m in found.near_misses
        ],
    }
    return Answer(document, json=json)
