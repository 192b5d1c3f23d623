"""Every runtime by name, the other names people use for them, and what each can do on this machine."""

import difflib
from typing import TYPE_CHECKING

from gn_deploy.errors import InputError
from gn_deploy.registry import Registry, Unavailable
from gn_deploy.targets import DTYPES

if TYPE_CHECKING:
    from gn_deploy.runtimes.base import Probe, Runtime

RUNTIMES: "Registry[Runtime]" = Registry(
    "runtime",
    "gn_deploy.runtimes",
    {
        "torch": "gn_deploy.runtimes.torch_eager:TORCH",
        "onnx-reference": "gn_deploy.runtimes.onnx_reference:ONNX_REFERENCE",
        "onnxruntime": "gn_deploy.runtimes.onnxruntime:CPU",
        "ort-cuda": "gn_deploy.runtimes.onnxruntime:CUDA",
        "ort-tensorrt": "gn_deploy.runtimes.onnxruntime:TENSORRT",
        "openvino": "gn_deploy.runtimes.openvino:OPENVINO",
        "tensorrt-rtx": "gn_deploy.runtimes.tensorrt_rtx:TENSORRT_RTX",
        "tensorrt": "gn_deploy.runtimes.tensorrt:TENSORRT",
    },
)

ALIASES = {
    "onnx": "onnx-reference",
    "ort": "onnxruntime",
    "ort-cpu": "onnxruntime",
    "ort-trt": "ort-tensorrt",
    "ov": "openvino",
    "pytorch": "torch",
    "reference": "onnx-reference",
    "rtx": "tensorrt-rtx",
    "trt": "tensorrt",
    "trt-rtx": "tensorrt-rtx",
}
"""Names of targets and habits of people -> names in ``RUNTIMES``."""
PRECISIONS = {**DTYPES, "fp64": "float64", "tf32": "tf32"} | {name: name for name in (*DTYPES.values(), "float64")}
"""What may follow the colon of ``openvino:bf16`` -> the precision it asks for."""


def resolve(target_runtime: str) -> str:
    """The registry name of ``Target.runtime``, an alias or a registry name, with or without a precision after a colon;
    InputError names the nearest otherwise."""
    asked, _, _ = target_runtime.partition(":")
    name = ALIASES.get(asked, asked)
    if name in RUNTIMES.names():
        return name
    known = (*RUNTIMES.names(), *ALIASES)
    near = difflib.get_close_matches(asked, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(RUNTIMES.names())}"
    raise InputError(f"unknown runtime '{asked}'", hint)


def asked_precision(runtime: str) -> str:
    """"bfloat16" of "openvino:bf16" or "openvino:bfloat16", "" of "openvino"; InputError for an unknown precision."""
    _, colon, suffix = runtime.partition(":")
    if not colon:
        return ""
    if suffix not in PRECISIONS:
        raise InputError(f"unknown precision '{suffix}' in runtime '{runtime}'", f"one of {', '.join(PRECISIONS)}")
    return PRECISIONS[suffix]


def doctor() -> "list[Probe]":
    """What every runtime can do here, in registry order; one that cannot even be loaded says why."""
    from gn_deploy.decision import Rejected
    from gn_deploy.runtimes.base import Probe

    probes = []
    for name in RUNTIMES.names():
        entry = RUNTIMES.get(name)
        if isinstance(entry, Unavailable):
            probes.append(Probe(name, None, Rejected(entry.reason), Rejected(entry.reason)))
        else:
            probes.append(entry.probe())
    return probes
