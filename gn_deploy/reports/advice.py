"""What to do about a comparison that did not hold: the next commands, from what broke and where."""

import math
import shlex

from gn_deploy.parity.report import ParityReport, SiteVerdict
from gn_deploy.parity.status import Status
from gn_deploy.reports.summary import plural
from gn_deploy.runtimes import ALIASES

_TARGETS = {
    "onnxruntime": "ort-cpu",
    "ort-cuda": "ort-cuda",
    "ort-tensorrt": "tensorrt",
    "openvino": "openvino",
    "tensorrt": "tensorrt",
    "tensorrt-rtx": "tensorrt-rtx",
}
"""Runtime that was judged -> the target whose rules avoid what it computes wrongly."""
_STANDARD = "onnx-reference"


def next_steps(report: ParityReport) -> list[str]:
    """Sentences, each with a command where there is one; empty when parity held."""
    if report.held:
        return []
    a, b = (_named(name, stand_in) for name, stand_in in ((report.reference, "A"), (report.candidate, "B")))
    broken = [v for v in report.sites if v.status.broken]
    runtimes = dict.fromkeys(v.runtime for v in broken)
    steps = [_about(runtime, [v for v in broken if v.runtime == runtime], report, a, b) for runtime in runtimes]
    outside = [v.status for v in report.outputs] + [v.status for v in report.tasks]
    if any(status.broken for status in outside) and not broken:
        told = [f"Open it on {f.runtime} without {f.culprit}: {f.remedy}" for f in report.blamed if f.remedy]
        named = " ".join(f"--runtime {shlex.quote(v.runtime)}" for v in report.runtimes if v.status.broken)
        where = f"find the first value that is wrong: gn-deploy parity {a} {b} {named} --blame"
        found = any(d.value for d in report.located)
        steps += told or [f"Every GroupNorm is right, the outputs are not: {'see where it parts' if found else where}."]
    for runtime in (v.runtime for v in report.runtimes if v.status is Status.CRASH):
        target = _TARGETS.get(_plain(runtime), "onnx")
        steps.append(f"See whether {runtime} takes another spelling: gn-deploy inspect {b} --target {target}")
    if not report.broken and report.unsettled:
        steps.append(_settling(report))
    if all(v.status is Status.NOTRUN for v in report.runtimes):
        steps.append("See what this machine can run: gn-deploy doctor")
    return list(filter(None, dict.fromkeys(steps)))


def _about(runtime: str, broken: list[SiteVerdict], report: ParityReport, a: str, b: str) -> str:
    name = _plain(runtime)
    if all(v.status is Status.LOWPREC for v in broken):
        return f"If less than promised is enough: gn-deploy parity {a} {b} --runtime {runtime} --accept lowprec"
    if name not in _TARGETS:  # what is written is judged, not who runs it
        if all(v.status is Status.UNSTABLE for v in broken):
            return f"The model itself takes the variance in one pass: correct {b} where it is made."
        return f"See what each of the two says it computes: gn-deploy inspect {a} ; gn-deploy inspect {b}"
    if any(d.value for d in report.located if _plain(d.runtime) == _STANDARD):
        return f"{b} is wrong, whoever runs it; see what each computes: gn-deploy inspect {a} ; gn-deploy inspect {b}"
    standard = [v for v in report.sites if _plain(v.runtime) == _STANDARD]
    if any(v.status.broken for v in standard):
        return ""  # what is written is wrong already, whoever runs it: the advice about that comes with the standard
    if standard or all(v.status is Status.UNSTABLE for v in broken):
        target = _TARGETS[name]
        out = f"{b.removesuffix('.onnx')}.{target}.onnx" if b.endswith(".onnx") else "OUT.onnx"
        return f"Write them the way {runtime} computes them right: gn-deploy lower {b} --target {target} -o {out}"
    return f"Find out whether the file or {runtime} is wrong, by the ONNX standard alone: gn-deploy parity {a} {b}"


def _settling(report: ParityReport) -> str:
    """What to raise where a confidence was asked for that time or data did not reach."""
    sure = report.confidence
    if sure is None or not sure.inputs:
        return ""
    rate = math.ceil(100 * sure.rate_below) / 100  # a round one that these inputs are enough for
    less = f", or ask for less: --rate {rate:g} is settled by {plural(sure.inputs, 'input')}" if rate < 1 else ""
    return f"Give it more inputs: a longer --time-budget or none, or more --data{less}"


def _plain(runtime: str) -> str:
    """The registry's name, without a precision."""
    name, _, _ = runtime.partition(":")
    return ALIASES.get(name, name)


def _named(name: str, stand_in: str) -> str:
    return shlex.quote(name) if name.endswith((".onnx", ".py")) else stand_in
