"""lower: write every GroupNorm of a file the way a target runs it best, and prove that each is still the same."""

from pathlib import Path
from typing import Annotated

import typer

from gn_deploy.cli.base import Answer, Json, NoVerify, show_sites, site_rows, terminal
from gn_deploy.errors import InputError


def lower(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file; it is never changed.")],
    target: Annotated[
        str,
        typer.Option(
            "--target",
            "-t",
            help=r"RUNTIME\[@VERSION]\[:DTYPE]\[+FORM], e.g. ort-cpu, tensorrt@10.8:fp16, or tensorrt+auto: our plugin "
            "where TensorRT's own GroupNorm is wrong or slow (+plugin: everywhere).",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="Where to write the result.")],
    no_verify: NoVerify = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Write OUT even when no GroupNorm is there, or none can be written as +FORM."),
    ] = False,
    json: Json = False,
) -> Answer:
    """Rewrite the GroupNorms of MODEL for a target; what cannot be proved equal is left as it was, with the reason."""
    from gn_deploy import api
    from gn_deploy.graph.atomic import check_place
    from gn_deploy.graph.io import load, save
    from gn_deploy.reports.summary import plural

    wanted = api.checked_target(target)  # told before the file is read
    console = terminal(json)
    with console.status(f"lowering for {wanted}" + ("" if no_verify else ", checking every site")):
        check_place(out)
        source = load(model)
        before = source.opset_imports.get("")
        lowered = api.lower(source, wanted, verify=not no_verify)
        if not lowered.decisions and not force:
            raise InputError(
                f"'{model}' has no GroupNorm: nothing was written",
                f"gn-deploy inspect {model} --why shows what came close; --force writes a copy all the same",
            )
        refused = [d.decision.reason.removeprefix(f"left as {d.form}: ") for d in lowered.decisions if not d.decision]
        if wanted.form and len(refused) == len(lowered.decisions) and not force:
            raise InputError(
                f"of {plural(len(refused), 'GroupNorm')} in '{model}' none can be written for {wanted}: {refused[0]}",
                "nothing was written; leave out +FORM for what the target runs best, --force writes it as it is",
            )
        save(lowered.model, out)
    rewritten = sum(bool(d.decision) and d.wrote is not None for d in lowered.decisions)
    after = lowered.model.opset_imports.get("")
    console.print(
        f"{out}: {rewritten} of {plural(len(lowered.decisions), 'GroupNorm')} rewritten for {wanted}, "
        + (f"opset {before} -> {after}" if before != after else f"opset {after}")
        + (f", {lowered.precision}" if lowered.precision else "")
    )
    show_sites(lowered.decisions, "written as", console)
    document = {
        "target": str(wanted),
        "out": str(out),
        "written": True,
        "verified": not no_verify,
        "opset": {"before": before, "after": after},
        "precision": lowered.precision,
        "sites": site_rows(lowered.decisions),
        "summary": {
            "sites": len(lowered.decisions),
            "rewritten": rewritten,
            "kept": len(lowered.decisions) - rewritten,
        },
    }
    return Answer(document, json=json)
