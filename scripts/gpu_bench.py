"""Builds the kernels, checks them on the GPU of this machine and times them beside copies and torch.

    python scripts/gpu_bench.py                                  everything, in 9 minutes
    python scripts/gpu_bench.py --library libgn_deploy_plugin.so --out /tmp/bench.json
    python scripts/gpu_bench.py --only SDXL nhwc --phases times
    python scripts/gpu_bench.py --show plugins/results/FILE.json  only the table
    python scripts/gpu_bench.py --show plugins/results/FILE.json --into plugins/README.md

Needs an NVIDIA GPU, its driver, torch with CUDA, numpy and ml_dtypes; nvcc (or PyPI's compiler packages) unless a
library is given. No TensorRT, no onnx. A library built elsewhere serves as well and saves up to 3 minutes:
`gn-deploy plugin build --arch 90` on any machine, then copy the file. The order is that of worth, so that a run cut
short has what matters: checks, times, compute-sanitizer, torch.compile. Everything that touches the GPU runs in a
process of its own: a hang or a crash is a line in the results, and the rest goes on. plugins/results/README.md says
what is in the file. Exit codes: 0 nothing wrong (a target missed is told, not counted), 1 wrong answers, a hang or a
crash, 2 arguments, 3 something is missing here.
"""

import argparse
import datetime
import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # for scripts.gpu, and the package where it is not installed

from gn_deploy.errors import ExitCode, GnDeployError, InputError, UnavailableError  # noqa: E402

PHASES = ("checks", "times", "sanitizer", "compile")
MACHINE = "scripts.gpu.machine:CudaMachine"


def main(arguments: list[str], clock: Callable[[], float] = time.monotonic) -> int:
    asked = parser().parse_args(arguments)
    try:
        return show(asked.show, asked.into) if asked.show else bench(asked, arguments, clock)
    except GnDeployError as error:
        print(f"gpu_bench: {error}", file=sys.stderr)
        return int(error.exit_code)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="gpu_bench.py", description=(__doc__ or "").splitlines()[0])
    made.add_argument("--library", type=Path, metavar="FILE", help="a library built before, instead of building one")
    made.add_argument("--out", type=Path, metavar="FILE.json", help="default: plugins/results/DEVICE-DATE.json")
    made.add_argument("--budget", type=float, default=540.0, metavar="SECONDS", help="for everything (default 540)")
    made.add_argument("--date", help="YYYY-MM-DD, for the results; default: today")
    made.add_argument("--only", nargs="+", default=[], metavar="WORD", help="cases whose network or key contains one")
    made.add_argument("--phases", nargs="+", default=PHASES, choices=PHASES, metavar="PHASE", help=", ".join(PHASES))
    made.add_argument("--variants", nargs="+", metavar="VARIANT", help="only these, and whatever is selected")
    made.add_argument("--seconds", type=float, default=1.0, help="of replays for each case (default 1)")
    made.add_argument("--checks", type=int, metavar="N", help="only the first N")
    made.add_argument("--show", type=Path, metavar="FILE.json", help="only print the table of a result file")
    made.add_argument("--into", type=Path, metavar="FILE.md", help="with --show: write it between the file's markers")
    made.add_argument("--machine", default=MACHINE, metavar="MODULE:CLASS", help=argparse.SUPPRESS)  # for the tests
    return made


def show(path: Path, page: Path | None) -> int:
    from scripts import pages
    from scripts.gpu.results import read
    from scripts.gpu.table import markdown

    try:
        shown = markdown(read(path))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot show {path}: {error}") from None
    if page is None:
        print(shown)
    else:
        pages.update(page, f"results/{path.name}", shown)
    return ExitCode.OK


def bench(asked: argparse.Namespace, arguments: list[str], clock: Callable[[], float]) -> int:
    demand(asked)
    from gn_deploy.plugin.binding import VARIANTS
    from scripts.gpu import child, phases, results, sample
    from scripts.gpu.budget import Budget
    from scripts.gpu.supervise import Lost, Supervised
    from scripts.gpu.table import markdown

    budget = Budget(asked.budget, clock=clock)
    cases = results.named(asked.only)
    if not cases:
        raise InputError(f"no case is named like {' or '.join(asked.only)}", "see scripts/gpu/cases.py")
    unknown = sorted(set(asked.variants or ()) - set(VARIANTS))
    if unknown:
        raise InputError(f"'{unknown[0]}' is no variant", f"one of {', '.join(VARIANTS)}")
    date = asked.date or datetime.date.today().isoformat()
    found = results.begun(cases, date=date, command=" ".join(["gpu_bench.py", *arguments]), budget_s=asked.budget)
    with tempfile.TemporaryDirectory(prefix="gn_deploy-") as folder:
        found["library"], library = library_of(asked.library, Path(folder))
        process = Supervised(asked.machine, library, Path(folder))
        try:
            facts = process.ask("starting", child.facts, limit=60.0)
        except Lost as lost:
            process.close()
            raise UnavailableError(f"the GPU cannot be used: {lost.message}") from None
        found |= facts
        out = asked.out or ROOT / "plugins" / "results" / results.file_name(found["device"]["name"], date)

        def write() -> None:
            found["spent_s"] = round(budget.spent, 1)
            results.write(out, found)

        run = phases.Run(process, budget, found, write, tell, asked.phases, asked.seconds)
        variants = asked.variants or VARIANTS
        write()
        try:
            if "checks" in asked.phases:
                phases.check_all(run, sample.sample()[: asked.checks], variants)
            if "times" in asked.phases:
                found["launch_us"] = launch_cost(process)
                phases.time_all(run, cases, variants)
            if "sanitizer" in asked.phases:
                sanitize(run, library)
            if "compile" in asked.phases:
                phases.compile_all(run, cases)
            found["finished"] = not found["unfinished"]
        except KeyboardInterrupt:
            found["unfinished"].append("interrupted")
            return ExitCode.INTERRUPTED
        finally:
            process.close()
            write()
    print(markdown(found))
    tell(f"wrote {out} after {budget.spent:.0f} s")
    wrong = results.faults(found)
    for fault in wrong:
        tell(f"FAULT {fault}")
    for miss in results.missed(found):
        tell(f"target missed: {miss}")
    return ExitCode.PARITY_BROKEN if wrong else ExitCode.OK


def demand(asked: argparse.Namespace) -> None:
    """Raises UnavailableError with everything that is missing here, not only the first."""
    lacking = [f"{name} is not installed" for name in ("numpy", "ml_dtypes", "torch") if find_spec(name) is None]
    if not lacking:
        from gn_deploy.plugin import toolchain
        from scripts.gpu import machine

        reason = machine.missing() if asked.machine == MACHINE else ""
        lacking += [reason] if reason else []
        search = toolchain.search() if asked.library is None else None
        if search is not None and not search:
            lacking.append(f"{search.reason} (or give --library a file built elsewhere)")
    if lacking:
        raise UnavailableError("; ".join(lacking), "this script wants a machine with an NVIDIA GPU")


def library_of(library: Path | None, folder: Path) -> tuple[dict[str, Any], Path]:
    """What the results say of the library, and where it is."""
    seconds = None
    if library is None:
        from gn_deploy.plugin import build as builder

        begun = time.monotonic()
        tell("building the kernels for this GPU")
        library = builder.build(
            folder / "libgn_deploy_plugin.so",
            architectures=[builder.architecture("native")],
            tell=lambda done, of, name: tell(f"{done} of {of} {name}"),
        ).path
        seconds = round(time.monotonic() - begun, 1)
        tell(f"built in {seconds:.0f} s")
    elif not library.is_file():
        raise InputError(f"no such library: {library}", "gn-deploy plugin build writes one")
    digest = hashlib.sha256(library.read_bytes()).hexdigest()
    told = {"file": library.name, "sha256": digest, "bytes": library.stat().st_size, "build_s": seconds}
    return told | what_it_says(library), library


def what_it_says(library: Path) -> dict[str, Any]:
    """Of itself: what it was built from and for. Raises InputError where it has no code for this GPU."""
    from gn_deploy.plugin import build as builder
    from gn_deploy.plugin.about import about

    try:
        found = about(library)
    except InputError:
        return {}  # a library with the same functions that is not the plugin's, as in the tests
    here = builder.architecture("native")
    kin = [a for a in found.architectures if a // 10 == here // 10 and a <= here]
    if not kin and not [p for p in found.ptx if p <= here]:
        raise InputError(f"'{library}' is built for {found.built_for}, this GPU is sm_{here}", f"--arch {here}")
    if found.outdated:
        tell(f"'{library}' was built from other sources than those here")
    return {
        "sources": found.sources,
        "outdated": found.outdated,
        "compiler": found.compiler,
        "built_for": found.built_for,
    }


def launch_cost(process: Any) -> float | None:
    from scripts.gpu import child
    from scripts.gpu.supervise import Lost

    try:
        cost: float | None = process.ask("timing an empty kernel", child.launch_cost, limit=20.0)
    except Lost as lost:
        tell(f"no time of an empty kernel: {lost.message}")
        return None
    return cost


def sanitize(run: Any, library: Path) -> None:
    from gn_deploy.plugin import toolchain
    from scripts.gpu.sanitizer import TOOLS, sanitize

    program = toolchain.tool("compute-sanitizer")
    if program is None:
        run.results["sanitizer"] = {"reason": "compute-sanitizer is neither on PATH nor in a CUDA toolkit"}
        tell(f"sanitizer: {run.results['sanitizer']['reason']}")
        return
    run.process.close()  # its context would only be in the way
    told = run.results["sanitizer"] = {"tools": {}}
    for tool in TOOLS:
        if not run.budget.allows(10.0):
            run.stopped("sanitizer", len(told["tools"]), len(TOOLS))
            break
        told["tools"][tool] = sanitize(program, library, tool, run.budget.limit(60.0))
        tell(f"{tool}: {told['tools'][tool]['status']}")
        run.write()


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH")) if p)
    sys.exit(main(sys.argv[1:]))
