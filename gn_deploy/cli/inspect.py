"""inspect: every GroupNorm in a file, what it computes, where it came from, and what a target would make of it."""

from pathlib import Path
from typing import Annotated

import typer

from gn_deploy.cli.base import Answer, Json, show_sites, site_rows, terminal


def inspect(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file.")],
    target: Annotated[str, typer.Option("--target", "-t", help="Whose decision to show for each site.")] = "onnx",
    why: Annotated[bool, typer.Option("--why", help="Also show what looked like a GroupNorm and is none.")] = False,
    json: Json = False,
) -> Answer:
    """Show every GroupNorm in MODEL; nothing is written."""
    from gn_deploy import api
    from gn_deploy.reports.summary import plural
    from gn_deploy.reports.text import plain, table

    console = terminal(json)
    with console.status("reading"):
        found = api.inspect(model, target)
    opset = found.model.opset_imports.get("")
    console.print(f"{model}: {plural(len(found.sites), 'GroupNorm')}, opset {opset}")
    show_sites(found.decisions, f"{target} takes it as", console)
    for site in found.sites:
        for note in site.remarks:
            console.print(f"note: {plain(site.name)}: {plain(note)}", style="yellow")
    if found.near_misses and not why:
        console.print(f"{plural(len(found.near_misses), 'place')} looked like a GroupNorm; --why shows the reasons")
    if found.near_misses and why:
        misses = sorted(found.near_misses, key=lambda miss: -miss.progress)
        lines = [[m.node, m.form, str(m.progress), m.reason] for m in misses]
        console.print(table("\nNear misses", ("node", "form", ">nodes matched", "what stopped it"), lines))
    document = {
        "model": str(model),
        "opset": opset,
        "target": target,
        "sites": [
            row | {"notes": list(site.remarks)}
            for row, site in zip(site_rows(found.decisions), found.sites, strict=True)
        ],
        "near_misses": [
            {"node": m.node, "form": m.form, "reason": m.reason, "progress": m.progress} for m in found.near_misses
        ],
    }
    return Answer(document, json=json)
