"""Where a model will run, and which way of writing Group Normalization each runtime takes and prefers."""

import difflib
import re
from dataclasses import dataclass

from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.errors import InputError
from gn_deploy.spec import GroupNormSpec

RUNTIMES = ("onnx", "ort-cpu", "ort-cuda", "openvino", "tensorrt", "tensorrt-rtx")
WITH_ENGINES = ("tensorrt-rtx", "tensorrt")
"""Those for which a model is compiled ahead of time."""
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""Suffix -> element type the whole model is written in; without a suffix the model keeps its own types."""

_GRAMMAR = re.compile(r"(?P<runtime>[a-z-]+)(@(?P<version>\d+(\.\d+)*))?(:(?P<dtype>[a-z0-9]+))?(\+(?P<form>\w+))?")
_NATIVE_SINCE = (10, 9)  # onnx-tensorrt imports per-channel GroupNormalization-21 from here on (NVIDIA/TensorRT#4336)


@dataclass(frozen=True, slots=True)
class Target:
    """``RUNTIME[@VERSION][:DTYPE][+FORM]``, for example ``tensorrt@10.8:fp16+instance_norm``.

    1. ``parse`` and ``str`` are inverses.
    2. Without a version the newest release known to gn_deploy is meant.
    3. ``form`` asks for one form; the runtime's own rules still apply, only the preference is overridden.
    """

    runtime: str
    version: str | None = None
    dtype: str | None = None
    form: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Raises InputError, naming the nearest known runtime or suffix, for anything outside the grammar."""
        match = _GRAMMAR.fullmatch(text.strip())
        if match is None:
            raise InputError(f"target '{text}' is not RUNTIME[@VERSION][:DTYPE][+FORM]", _nearest(text, RUNTIMES))
        runtime, dtype = match["runtime"], match["dtype"]
        if runtime not in RUNTIMES:
            raise InputError(f"unknown target '{text}'", _nearest(runtime, RUNTIMES))
        if dtype is not None and dtype not in DTYPES:
            raise InputError(f"unknown dtype '{dtype}' in target '{text}'", f"one of {', '.join(DTYPES)}")
        return cls(runtime, match["version"], dtype, match["form"])

    def __str__(self) -> str:
        version = f"@{self.version}" if self.version else ""
        dtype = f":{self.dtype}" if self.dtype else ""
        form = f"+{self.form}" if self.form else ""
        return f"{self.runtime}{version}{dtype}{form}"

    def preference(self, spec: GroupNormSpec) -> tuple[str, ...]:
        """Names of forms to try for ``spec``, best first; an explicitly asked form is the only one."""
        if self.form is not None:
            return (self.form,)
        if self.runtime in ("tensorrt", "tensorrt-rtx"):
            return ("layer_norm",) if spec.num_groups == 1 else ("native", "instance_norm", "layer_norm")
        # ONNX Runtime expands GroupNormalization into ten primitives with one-pass variance: slowest and unsafe
        # (NaN on a constant image); OpenVINO 2026.4 crashes compiling it when all shapes are static (4 of 4 small
        # ResNets, 0 of 20 otherwise). InstanceNormalization has a two-pass kernel on CPU and a cuDNN one on CUDA.
        # LayerNormalization serves bf16 below opset 22, where InstanceNormalization does not allow it.
        return ("instance_norm", "layer_norm", "primitives")

    def takes(self, form: str, spec: GroupNormSpec) -> Decision:
        """Whether this runtime computes ``spec`` rightly when it is written as ``form``."""
        if form == "contrib" and self.runtime not in ("onnx", "ort-cuda"):
            return Rejected("com.microsoft GroupNorm has kernels for ONNX Runtime on CUDA alone")
        if form == "contrib" and self.runtime == "ort-cuda" and spec.channels_per_group % 2:
            return Rejected("the kernel of com.microsoft GroupNorm takes channels in pairs, a group has an odd number")
        if self.runtime not in ("tensorrt", "tensorrt-rtx"):
            return Accepted()
        if form in ("native", "native18"):
            if spec.num_groups == 1:
                return Rejected(
                    "TensorRT compiles GroupNormalization(num_groups=1) as instance normalization: wrong numbers, "
                    "no warning (NVIDIA/TensorRT#4756)"
                )
            if form == "native" and self.runtime == "tensorrt" and self._older_than(_NATIVE_SINCE):
                return Rejected(f"TensorRT {self.version} does not import GroupNormalization-21 (10.9 and later do)")
        return Accepted()

    def _older_than(self, release: tuple[int, ...]) -> bool:
        return self.version is not None and tuple(int(part) for part in self.version.split(".")) < release


def _nearest(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
