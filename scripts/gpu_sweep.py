"""Times all sensible choices for each layer on the GPU of this machine, or fits the constants of the choice to them.

    python scripts/gpu_sweep.py                                  all layers, in 9 minutes
    python scripts/gpu_sweep.py --library libgn_deploy_plugin.so --budget 560
    python scripts/gpu_sweep.py --only SDXL nhwc --variants team cluster
    python scripts/gpu_sweep.py --fit plugins/results/FILE-sweep.json

Timing needs what scripts/gpu_bench.py needs; a fit only numpy, and no GPU. A choice is a variant with its tile, slab,
blocks and what is copied ahead. None is launched that the kernels' own rules forbid, and the best of each variant are
verified against float64. The file is whole after each layer, most telling layers first. plugins/kernels/select.cpp and
gn_deploy/plugin/select.py hold the constants: nobody but you edits them. Exit codes: 0, 1 wrong answers, a hang or a
crash, 2 arguments, 3 something is missing here.
"""

import argparse
import datetime
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # for scripts.gpu, and the package where it is not installed

from gn_deploy.errors import ExitCode, GnDeployError, InputError, UnavailableError  # noqa: E402
from scripts.gpu_bench import MACHINE, demand, library_of, tell  # noqa: E402

SECONDS = 15.0  # for one layer at most: what is left to the next ones
MARGIN = 15.0  # seconds until a process that is late is ended: allocation, and one large choice to its end
PATIENCE = 3  # times a layer is asked again, and a variant may take its process down


def main(arguments: list[str], clock: Callable[[], float] = time.monotonic) -> int:
    asked = parser().parse_args(arguments)
    try:
        return fit(asked.fit) if asked.fit else timed(asked, arguments, clock)
    except GnDeployError as error:
        print(f"gpu_sweep: {error}", file=sys.stderr)
        return int(error.exit_code)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="gpu_sweep.py", description=(__doc__ or "").splitlines()[0])
    made.add_argument("--fit", type=Path, metavar="FILE.json", help="a sweep that was made; needs no GPU")
    made.add_argument("--library", type=Path, metavar="FILE", help="a library built before, instead of building one")
    made.add_argument("--out", type=Path, metavar="FILE.json", help="default: plugins/results/DEVICE-DATE-sweep.json")
    made.add_argument("--budget", type=float, default=540.0, metavar="SECONDS", help="for everything (default 540)")
    made.add_argument("--date", help="YYYY-MM-DD, for the results; default: today")
    made.add_argument("--only", nargs="+", default=[], metavar="WORD", help="cases whose network or key contains one")
    made.add_argument("--variants", nargs="+", metavar="VARIANT", help="only these")
    made.add_argument("--most", type=int, default=400, metavar="N", help="choices of a layer (default 400)")
    made.add_argument("--seconds", type=float, default=SECONDS, help=f"for one layer at most (default {SECONDS:g})")
    made.add_argument("--machine", default=MACHINE, metavar="MODULE:CLASS", help=argparse.SUPPRESS)  # for the tests
    return made


def fit(path: Path) -> int:
    from gn_deploy.plugin.problem import Device
    from scripts.gpu import sweep_results
    from scripts.gpu.fit import page

    try:
        found = sweep_results.read(path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    layers = sweep_results.layers(found)
    if not layers:
        raise InputError(f"{path} holds no times")
    times = sum(len(layer.times) for layer in layers)
    told = f"{found['device']['name']}, {found['date']}: {times} choices for {len(layers)} layers"
    print(page(layers, Device(**found["gn_device"]), told))
    return ExitCode.OK


def timed(asked: argparse.Namespace, arguments: list[str], clock: Callable[[], float]) -> int:
    demand(asked)
    from gn_deploy.plugin.binding import VARIANTS
    from scripts.gpu import child, results, sweep_results
    from scripts.gpu.budget import Budget
    from scripts.gpu.supervise import Lost, Supervised

    budget = Budget(asked.budget, clock=clock)
    cases = results.named(asked.only)
    if not cases:
        raise InputError(f"no case is named like {' or '.join(asked.only)}", "see scripts/gpu/cases.py")
    unknown = sorted(set(asked.variants or ()) - set(VARIANTS))
    if unknown:
        raise InputError(f"'{unknown[0]}' is no variant", f"one of {', '.join(VARIANTS)}")
    date = asked.date or datetime.date.today().isoformat()
    found = sweep_results.begun(cases, date=date, command=" ".join(["gpu_sweep.py", *arguments]), budget_s=asked.budget)
    with tempfile.TemporaryDirectory(prefix="gn_deploy-") as folder:
        found["library"], library = library_of(asked.library, Path(folder))
        process = Supervised(asked.machine, library, Path(folder))
        try:
            found |= process.ask("starting", child.facts, limit=60.0)
            found["gn_device"] = process.ask("starting", child.described, limit=60.0)
        except Lost as lost:
            process.close()
            raise UnavailableError(f"the GPU cannot be used: {lost.message}") from None
        name = results.file_name(found["device"]["name"], date).replace(".json", "-sweep.json")
        out = asked.out or ROOT / "plugins" / "results" / name

        def write() -> None:
            found["spent_s"] = round(budget.spent, 1)
            sweep_results.write(out, found)

        write()
        options = {"only": tuple(asked.variants or VARIANTS), "most": asked.most}
        try:
            sweep_all(process, budget, found, cases, options, asked.seconds, write)
            found["finished"] = not found["unfinished"]
        except KeyboardInterrupt:
            found["unfinished"].append("interrupted")
            return ExitCode.INTERRUPTED
        finally:
            process.close()
            write()
    tell(f"wrote {out} after {budget.spent:.0f} s; python scripts/gpu_sweep.py --fit {out} says what it means")
    wrong = sweep_results.faults(found)
    for fault in wrong:
        tell(f"FAULT {fault}")
    return ExitCode.PARITY_BROKEN if wrong else ExitCode.OK


def sweep_all(
    process: Any,
    budget: Any,
    found: dict[str, Any],
    cases: Sequence[Any],
    options: dict[str, Any],
    most: float,
    write: Callable[[], None],
) -> None:
    """A layer has an equal part of what is left; who takes less leaves more to the next ones."""
    lost: dict[str, int] = {}
    for i, case in enumerate(cases):
        if not budget.allows(2.0):
            found["unfinished"].append(f"{i} of {len(cases)} layers in the time given")
            tell(f"out of time after {i} of {len(cases)} layers")
            return
        row = found["layers"][case.key]
        row |= one(process, budget, case, options, min(most, budget.left / (len(cases) - i)), lost)
        if "not_timed" in row:
            found["unfinished"].append(f"{case.key}: {row['not_timed']}")
        if "seconds" in row:
            if row["not_reached"]:
                found["unfinished"].append(f"{case.key}: {row['not_reached']} of {row['listed']} choices not reached")
            if row["rows"]:
                variant, *_, us, _ = row["rows"][0]
                took = f"{len(row['rows'])} choices in {row['seconds']:.1f} s"
                tell(f"{case.key}: {took}, the best {variant} {us:.2f} us")
        write()


def one(
    process: Any, budget: Any, case: Any, options: dict[str, Any], seconds: float, lost_before: dict[str, int]
) -> dict[str, Any]:
    """A choice that takes the process down is left out when the layer is asked again, and told in its row."""
    from scripts.gpu import child
    from scripts.gpu.supervise import Lost

    without: dict[str, str] = {}
    for _ in range(PATIENCE + 1):
        only = tuple(v for v in options["only"] if lost_before.get(v, 0) < PATIENCE)
        given = options | {"only": only, "seconds": min(seconds, budget.left), "without": without}
        limit = min(seconds + MARGIN, max(budget.left, 1.0))
        try:
            row: dict[str, Any] = process.ask(f"sweeping {case.key}", child.sweep, case, given, limit=limit)
            return row
        except Lost as lost:
            tell(f"LOST {case.key}: {lost.step}: {lost.message}")
            if lost.late and limit < seconds + MARGIN:
                return {"not_timed": "the budget ended in the middle of it"}  # which is nobody's fault
            variant = lost.step.split(" ")[0]
            if variant not in only or lost.step in without:
                return {"fault": f"{lost.step}: {lost.message}", "faults": without}
            without = without | {lost.step: lost.message}
            lost_before[variant] = lost_before.get(variant, 0) + 1
        if not budget.allows(2.0):
            break
    return {"fault": "too many choices took the process down", "faults": without}


if __name__ == "__main__":
    os.environ["PYTHONPATH"] = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH")) if p)
    sys.exit(main(sys.argv[1:]))
