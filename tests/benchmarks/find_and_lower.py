"""How long finding and lowering take on 20,000 nodes, and what lowering 2 GB of weights costs in memory.

Run from the repository: ``python -m tests.benchmarks.find_and_lower [--nodes 20000] [--sites 500] [--repeat 5]``.
"""

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.graphs import heavy, synthetic

TARGET = "onnx+native"
PEAK = """
import re, sys
import gn_deploy as gn

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

gn.lower(sys.argv[1], "onnx+native", out=sys.argv[2])  # a small model: modules and tables are loaded now
before = peak()
gn.lower(sys.argv[3], "onnx+native", out=sys.argv[4])
print(peak() - before)
"""


def seconds(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def stages(path: Path) -> dict[str, float]:
    """Seconds of each stage, on a freshly loaded model."""
    from gn_deploy.graph.io import load
    from gn_deploy.graph.normalize import normalize
    from gn_deploy.passes.lower import LowerGroupNorm
    from gn_deploy.sites import find

    result: dict[str, float] = {}
    begin = time.perf_counter()
    model = load(path)
    result["load"] = time.perf_counter() - begin
    result["normalize"] = seconds(lambda: normalize(model))
    result["find"] = seconds(lambda: find(model))
    result["find + lower + clean"] = seconds(lambda: LowerGroupNorm(TARGET)(model))
    result["normalize again"] = seconds(lambda: normalize(model))
    return result


def program(*arguments: str) -> float:
    return seconds(lambda: subprocess.run([sys.executable, *arguments], capture_output=True, check=True))


def peak_memory(folder: Path, gigabytes: float) -> float:
    """What ``peak_added`` says of a model of that size with external data."""
    heavy(folder / "small.onnx", 0.0625)
    heavy(folder / "large.onnx", gigabytes)
    return peak_added(folder)


def peak_added(folder: Path) -> float:
    """MiB that lowering large.onnx adds to the peak of a process that has lowered small.onnx beside it; Linux only."""
    arguments = [str(folder / name) for name in ("small.onnx", "small_out.onnx", "large.onnx", "large_out.onnx")]
    done = subprocess.run([sys.executable, "-c", PEAK, *arguments], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--nodes", type=int, default=20_000)
    parser.add_argument("--sites", type=int, default=500)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="weights of the model for the memory figure")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "synthetic.onnx"
        path.write_bytes(synthetic(chosen.nodes, chosen.sites).SerializeToString())
        runs = [stages(path) for _ in range(chosen.repeat)]
        print(f"{chosen.nodes} nodes, {chosen.sites} sites, target {TARGET}, median (least) of {chosen.repeat}")
        for stage in runs[0]:
            times = [run[stage] for run in runs]
            print(f"  {stage:24} {statistics.median(times):7.3f} s ({min(times):.3f})")
        commands = {"empty program": ("-c", "pass"), "import gn_deploy": ("-c", "import gn_deploy")}
        commands["gn-deploy -h"] = ("-m", "gn_deploy", "-h")
        alternating = [{what: program(*how) for what, how in commands.items()} for _ in range(chosen.repeat)]
        for what in commands:
            times = [run[what] for run in alternating]
            print(f"  {what:24} {statistics.median(times):7.3f} s ({min(times):.3f})")
        if not re.match("linux", sys.platform):
            return
        added = peak_memory(Path(name), chosen.gigabytes)
        print(f"  peak memory, lower and save {chosen.gigabytes:g} GB of weights: {added:.0f} MB more")


if __name__ == "__main__":
    main()
