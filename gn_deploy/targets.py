"""Where a model will run, and which way of writing Group Normalization each runtime takes and prefers."""

import difflib
import re
from dataclasses import dataclass, replace

from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.errors import InputError
from gn_deploy.spec import HALF_DTYPES, Activation, GroupNormSpec

RUNTIMES = ("onnx", "ort-cpu", "ort-cuda", "openvino", "tensorrt", "tensorrt-rtx")
WITH_ENGINES = ("tensorrt-rtx", "tensorrt")
"""Those for which a model is compiled ahead of time."""
AUTO = "auto"
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
"""Suffix -> element type the whole model is written in; without a suffix the model keeps its own types."""

_GRAMMAR = re.compile(r"(?P<runtime>[a-z-]+)(@(?P<version>\d+(\.\d+)*))?(:(?P<dtype>[a-z0-9]+))?(\+(?P<form>\w+))?")
_UNFUSED = (Activation.GELU, Activation.GELU_TANH, Activation.HARDSWISH, Activation.MISH)
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_ONE_BLOCK = 99072  # bytes of the largest group that RTX 1.7.1 normalizes in one block (compute capability 8.0)
_TILED = {
    *((32, c) for c in (128, 256, 320, 512, 640, 960, 1280, 1920, 2560)),
    *((8, c) for c in (16, 32)),
}
"""(groups, channels) for which it has tiled kernels of any size: Stable Diffusion's, of 50 pairs tried."""
_NATIVE_SINCE = (10, 9)  # onnx-tensorrt imports per-channel GroupNormalization-21 from here on (NVIDIA/TensorRT#4336)


@dataclass(frozen=True, slots=True)
class Target:
    """``RUNTIME[@VERSION][:DTYPE][+FORM]``, for example ``tensorrt@10.8:fp16+instance_norm``.

    1. ``parse`` and ``str`` are inverses.
    2. Without a version the newest release known to gn_deploy is meant.
    3. ``form`` asks for one form; the runtime's own rules still apply, only the preference is overridden.
       ``+plugin`` writes every site as the plugin's node, ``+auto`` those for which that pays.
    """

    runtime: str
    version: str | None = None
    dtype: str | None = None
    form: str | None = None
    """A form's name, or ``auto``: TensorRT's own op, and the plugin where ``plugin_pays``."""

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
        if match["form"] == AUTO and runtime not in WITH_ENGINES:
            raise InputError(
                f"target '{text}': only TensorRT has a plugin to choose", f"without +{AUTO}, or +FORM for one form"
            )
        return cls(runtime, match["version"], dtype, match["form"])

    def __str__(self) -> str:
        version = f"@{self.version}" if self.version else ""
        dtype = f":{self.dtype}" if self.dtype else ""
        form = f"+{self.form}" if self.form else ""
        return f"{self.runtime}{version}{dtype}{form}"

    def preference(self, spec: GroupNormSpec, positions: int | None = None) -> tuple[str, ...]:
        """Names of forms to try for ``spec``, best first; an explicitly asked form is the only one.

        ``positions`` are the elements of x for each sample and channel, None where a size is not known.
        """
        if self.form == AUTO:
            own = replace(self, form=None).preference(spec)
            return ("plugin", *own) if plugin_pays(spec, positions) else own
        if self.form is not None:
            return (self.form,)
        if self.runtime in WITH_ENGINES:
            return ("layer_norm",) if spec.num_groups == 1 else ("native", "instance_norm", "layer_norm")
        # ONNX Runtime expands GroupNormalization into ten primitives with one-pass variance: slowest and unsafe
        # (NaN on a constant image); OpenVINO 2026.4 crashes compiling it when all shapes are static (4 of 4 small
        # ResNets, 0 of 20 otherwise). InstanceNormalization has a two-pass kernel on CPU and a cuDNN one on CUDA.
        # LayerNormalization serves bf16 below opset 22, where InstanceNormalization does not allow it.
        return ("instance_norm", "layer_norm", "primitives")

    def why(self, spec: GroupNormSpec, positions: int | None = None) -> str:
        """What speaks for the first of ``preference``, where the target is one that chooses; else ""."""
        return plugin_pays(spec, positions).reason if self.form == AUTO else ""

    def takes(self, form: str, spec: GroupNormSpec) -> Decision:
        """Whether this runtime computes ``spec`` rightly when it is written as ``form``."""
        if form == "contrib" and self.runtime not in ("onnx", "ort-cuda"):
            return Rejected("com.microsoft GroupNorm has kernels for ONNX Runtime on CUDA alone")
        if form == "contrib" and self.runtime == "ort-cuda" and spec.channels_per_group % 2:
            return Rejected("the kernel of com.microsoft GroupNorm takes channels in pairs, a group has an odd number")
        if form == "trt_plugins" and self.runtime not in ("onnx", "tensorrt"):
            return Rejected("trt.plugins is for ONNX Runtime's TensorRT provider: --target tensorrt+trt_plugins")
        if self.runtime not in WITH_ENGINES:
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


def plugin_pays(spec: GroupNormSpec, positions: int | None = None) -> Decision:
    """Whether the plugin, one kernel that reads x once where it can, does better than what TensorRT makes of ``spec``.

    By what TensorRT-RTX 1.7.1 compiles it to (compute capability 8.0), not by times: a plugin is a barrier to fusion
    with what comes before and after, so it is only for what is wrong or falls apart into several kernels.
    ``positions`` are the elements of x for each sample and channel, None where a size is not known.
    """
    group = None if positions is None else spec.channels_per_group * positions * _BYTES.get(spec.dtype, 4)
    reasons = {
        "with one group TensorRT's own op is instance normalization (NVIDIA/TensorRT#4756)": spec.num_groups == 1,
        "a sum before the statistics makes 4 kernels": spec.residual,
        "scale and shift per sample are a kernel more": spec.scale_shift,
        f"{spec.activation} is a kernel more": spec.activation in _UNFUSED,
        "channels last makes 4 kernels": spec.channel_axis == -1,
        "scale and bias in float32 make 3 kernels": spec.wide_affine and spec.dtype in HALF_DTYPES,
        "groups of 3-D data are rarely small enough for one block": spec.rank == 5 and group is None,
    }
    if group is not None and group > _ONE_BLOCK and (spec.num_groups, spec.num_channels) not in _TILED:
        reasons[f"a group of {group / 1024:.0f} KiB is more than one block holds: 5 kernels or 6"] = True
    told = [reason for reason, holds in reasons.items() if holds]
    if told:
        return Accepted("; ".join(told))
    return Rejected("TensorRT's own op is one kernel or two" + ("" if positions else ", as far as the sizes are known"))


def _nearest(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}"
