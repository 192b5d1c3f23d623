"""doctor: what every runtime can do on this machine, and why not."""

import platform
from typing import Annotated

import typer

from gn_deploy import __version__
from gn_deploy.cli.base import Answer, Json, terminal


def doctor(
    json: Json = False,
    require: Annotated[
        list[str] | None,
        typer.Option("--require", metavar="NAME", help="Exit 3 unless this runtime can run or build here; repeatable."),
    ] = None,
) -> Answer:
    """Say which runtimes this machine has, what each can do here, and why not; and whether the plugin is built."""
    from rich.text import Text

    from gn_deploy.decision import Decision
    from gn_deploy.errors import UnavailableError
    from gn_deploy.plugin.about import found
    from gn_deploy.reports.text import table
    from gn_deploy.runtimes import doctor as probe_all
    from gn_deploy.runtimes import resolve

    required = [resolve(name) for name in require or ()]  # an unknown name is told before the slow part
    console = terminal(json)
    with console.status("asking every runtime"):
        probes = probe_all()

    for probe in probes:
        if probe.name in required and not (probe.run or probe.build):
            raise UnavailableError(f"runtime '{probe.name}' is not available: {probe.run.reason}")

    def can(decision: Decision) -> Text:
        return Text("✓", style="green") if decision else Text("–", style="dim")

    console.print(f"gn-deploy {__version__}, Python {platform.python_version()}")
    console.print(
        table(
            "\nRuntimes",
            ("runtime", "version", "run", "build", "detail", "why it does not run"),
            [
                [p.name, p.version or "–", can(p.run), can(p.build), p.detail, "" if p.run else p.run.reason]
                for p in probes
            ],
        )
    )
    plugin = found()
    console.print(f"\nTensorRT plugin: {plugin.told}")
    document = {
        "gn_deploy": __version__,
        "python": platform.python_version(),
        "runtimes": [
            {
                "name": p.name,
                "version": p.version,
                "run": {"accepted": bool(p.run), "reason": p.run.reason},
                "build": {"accepted": bool(p.build), "reason": p.build.reason},
                "detail": p.detail,
            }
            for p in probes
        ],
        "plugin": {
            "accepted": plugin.about is not None,
            "reason": plugin.told,
            "path": str(plugin.about.path) if plugin.about else None,
            "architectures": [f"sm_{number}" for number in plugin.about.architectures] if plugin.about else [],
        },
    }
    return Answer(document, json=json)
