"""A model that goes wrong by itself as files for a bug report: model, inputs, what is right, a script, the words."""

import io
import platform
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from gn_deploy.diagnosis.judge import Wrong
from gn_deploy.diagnosis.piece import Piece, sized
from gn_deploy.errors import InputError
from gn_deploy.graph.atomic import atomic
from gn_deploy.graph.io import save
from gn_deploy.parity.end_to_end import PASS_RATIO
from gn_deploy.parity.report import Blame, Divergence

FILES = ("model.onnx", "inputs.npz", "expected.npz", "repro.py", "README.md")

_SCRIPT = Template('''"""$title

Needs $package and numpy. Prints how far the output is from the float64 answer; exit code 1 when that is more than
rounding explains, 0 when it is not.
"""

import sys
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
$run

def difference(**options):
    got, want = run(**options), expected["output"]
    if got.shape != want.shape:
        print(f"shape {got.shape} instead of {want.shape}")
        return float("inf")
    with np.errstate(all="ignore"):
        error = np.abs(got.astype(np.float64) - want)
    error[(got == want) | (np.isnan(want) & np.isnan(got.astype(np.float64)))] = 0
    at = np.unravel_index(np.argmax(np.nan_to_num(error, nan=np.inf)), error.shape)
    where = tuple(map(int, at))
    print(f"{'without $culprit' if options else 'as it is'}: at {where} {got[at]:.9g} instead of {want[at]:.9g}")
    return float(np.nan_to_num(error, nan=np.inf).max(initial=0))


with np.load(HERE / "inputs.npz") as file:
    feeds = dict(file)
expected = np.load(HERE / "expected.npz")
print(version)
wrong = difference()
print(f"largest error {wrong:.3g}, rounding explains {float(expected['allowed']):.3g}")
$compare
sys.exit(1 if not wrong <= float(expected["allowed"]) else 0)
''')

_ORT = """
import onnxruntime

version = f"onnxruntime {onnxruntime.__version__}"


def run(**options):
    settings = onnxruntime.SessionOptions()
    level = options.pop("level", None)
    if level:
        settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    for key, value in options.pop("config", {}).items():
        settings.add_session_config_entry(key, value)
    settings.intra_op_num_threads = options.pop("threads", 0)
    model = str(HERE / "model.onnx")
    session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"], **options)
    return session.run(None, feeds)[0]

"""
_OPENVINO = """
import openvino

version = f"openvino {openvino.__version__}"


def run(**options):
    properties = {"INFERENCE_PRECISION_HINT": "$hint"} | options.pop("properties", {})
    compiled = openvino.Core().compile_model(HERE / "model.onnx", "CPU", properties)
    return compiled([feeds[next(n for n in port.get_names() if n in feeds)] for port in compiled.inputs])[0]

"""
_LEVELS = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
}


def write(
    folder: Path,
    piece: Piece,
    wrong: Wrong,
    found: Divergence,
    *,
    runtime: str,
    blame: Blame | None = None,
    asked: str = "",
    options: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """Paths of the files, all written into ``folder``, which is made when needed, or none.

    ``runtime`` is the one that the script uses: ONNX Runtime unless it is OpenVINO. ``options`` are those without which
    the runtime goes wrong, by ``blame``. Raises InputError where nothing can be written, and for bfloat16 values, which
    NumPy's files cannot hold.
    """
    import onnx_ir as ir

    if narrow := sorted(n for n, a in piece.feeds.items() if a.dtype.name == "bfloat16"):
        raise InputError(f"'{narrow[0]}' is bfloat16, which NumPy's files cannot hold", "look at the place itself")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write into '{folder}': {error.strerror}", "choose another folder") from error
    paths = [folder / name for name in FILES]
    feeds = {str(v.name): piece.feeds[str(v.name)] for v in piece.model.graph.inputs}
    expected = wrong.expected.astype(np.float64)
    right = {"output": expected, "allowed": np.float64(PASS_RATIO * wrong.noise)}
    model = sized(piece.model, feeds)
    model.graph.outputs[0].shape = ir.Shape(list(expected.shape))
    save(model, paths[0], external_data=False)
    texts = [_packed(feeds), _packed(right), _script(found, runtime, blame, asked, options or {}).encode()]
    texts.append(_readme(piece, wrong, found, runtime, blame, environment or {}).encode())
    with atomic(*paths[1:]) as files:
        for file, content in zip(files, texts, strict=True):
            file.write(content)
    return tuple(map(str, paths))


def _packed(arrays: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def _script(found: Divergence, runtime: str, blame: Blame | None, asked: str, options: Mapping[str, Any]) -> str:
    openvino = runtime == "openvino"
    hint = {"bfloat16": "bf16", "float16": "f16"}.get(asked, "f32")
    run = Template(_OPENVINO).substitute(hint=hint) if openvino else _ORT
    told = {k: v for k, v in options.items() if k in ("disabled_optimizers", "config", "threads", "properties")}
    if options.get("optimization") in _LEVELS:
        told["level"] = _LEVELS[options["optimization"]]
    if told.get("disabled_optimizers"):
        told["disabled_optimizers"] = list(told["disabled_optimizers"])
    culprit = blame.culprit.replace("'", "") if blame is not None and told else ""
    compare = f"difference(**{told!r})" if culprit else ""
    package = "openvino" if openvino else "onnxruntime"
    return _SCRIPT.substitute(title=_title(found), package=package, run=run, culprit=culprit, compare=compare)


def _title(found: Divergence) -> str:
    return f"{found.op_type} '{_safe(found.node)}': {_safe(found.looks_like) or 'wrong numbers'}."


def _safe(text: str) -> str:
    """Names come from a file: nothing of them may end the string that they stand in."""
    return "".join(c if c.isprintable() and c not in '"\\`' else "?" for c in text)


def _readme(
    piece: Piece, wrong: Wrong, found: Divergence, runtime: str, blame: Blame | None, environment: Mapping[str, str]
) -> str:
    versions = ", ".join(f"{name} {release}" for name, release in environment.items())
    shapes = ", ".join(f"`{_safe(n)}` {a.dtype}{list(a.shape)}" for n, a in piece.feeds.items())
    nodes = ", ".join(f"{n.op_type} `{_safe(n.name or '')}`" for n in piece.nodes[:6])
    more = f" and {len(piece.nodes) - 6} more" if len(piece.nodes) > 6 else ""
    lines = [
        f"# {_title(found)[:-1]}",
        "",
        f"`model.onnx` has {len(piece.nodes)} nodes ({nodes}{more}), cut out of a larger model with its weights. "
        f"Inputs, in `inputs.npz`: {shapes}. `expected.npz` has the answer in float64.",
        "",
        "    python repro.py",
        "",
        f"**Expected**: `{_safe(wrong.value)}` within {PASS_RATIO * wrong.noise:.3g} of the float64 answer, which is "
        f"{PASS_RATIO:g} times what rounding the inputs and weights by one unit in the last place does.",
        "",
        f"**Actual**: {_actual(wrong)}. It looks like this: {_safe(wrong.looks_like) or 'no rule is seen'}.",
        "",
    ]
    if found.reason:
        lines += [_safe(found.reason[:1].upper() + found.reason[1:]) + ".", ""]
    if blame is not None and blame.culprit:
        lines += [f"Without `{blame.culprit}` ({blame.kind}) it is right: `{blame.remedy}`.", ""]
    elif blame is not None and blame.reason:
        lines += [blame.reason[:1].upper() + blame.reason[1:] + ".", ""]
    lines += [f"Seen with {versions or runtime}, {platform.system()} {platform.machine()}."]
    return "\n".join(lines) + "\n"


def _actual(wrong: Wrong) -> str:
    if wrong.metrics is None or wrong.actual.shape != wrong.expected.shape:
        return _safe(wrong.looks_like)
    with np.errstate(all="ignore"):
        error = np.nan_to_num(np.abs(wrong.actual.astype(np.float64) - wrong.expected), nan=np.inf)
    at = np.unravel_index(int(error.argmax()), error.shape)
    return (
        f"off by up to {error.max():.3g}, at {tuple(map(int, at))}: {wrong.actual[at]:.9g} instead of "
        f"{wrong.expected[at]:.9g}"
    )
