"""export: a recipe's trained module to an ONNX file, verified against the module itself."""

from pathlib import Path
from typing import Annotated

import typer

from gn_deploy.cli.base import Answer, Json, NoVerify, show_sites, site_rows, terminal


def export(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe: models/NAME.py or a file of your own.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="Where to write the ONNX file.")],
    target: Annotated[str | None, typer.Option("--target", "-t", help="Also lower for this target.")] = None,
    opset: Annotated[int | None, typer.Option("--opset", metavar="N", help="ONNX opset of the export.")] = None,
    dynamic: Annotated[
        bool, typer.Option("--dynamic/--static", help="Leave batch and image sizes open, or fix them.")
    ] = True,
    no_verify: NoVerify = False,
    json: Json = False,
) -> Answer:
    """Export RECIPE to ONNX; with --target, its GroupNorms are written the way that runtime takes them."""
    from gn_deploy import api
    from gn_deploy.reports.summary import plural

    console = terminal(json)
    with console.status("exporting" + ("" if no_verify else ", checking against the module")):
        exported = api.export(recipe, target=target, dynamic=dynamic, opset=opset, out=out, verify=not no_verify)
    version = exported.model.opset_imports.get("")
    found = api.inspect(exported.model)
    count = plural(len(found.sites), "GroupNorm")
    checked = "not checked" if no_verify else "checked against the module"
    console.print(f"{out}: opset {version}, {count}, {checked}")
    show_sites(exported.decisions, "written as", console)
    asked_nobody = {"decision": None}  # without a target there is none
    document = {
        "recipe": recipe,
        "target": target,
        "out": str(out),
        "opset": version,
        "verified": not no_verify,
        "sites": site_rows(exported.decisions)
        if target is not None
        else [row | asked_nobody for row in site_rows(found.decisions)],
    }
    return Answer(document, json=json)
