"""A kernel compiled for one layer: sizes, types, activation are constants, and its parameters what TensorRT passes."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from gn_deploy.plugin import nvrtc, ptx
from gn_deploy.plugin.binding import ACTIVATIONS, DTYPES, LAYOUTS, VARIANTS
from gn_deploy.plugin.node import INPUTS
from gn_deploy.plugin.problem import Problem
from gn_deploy.plugin.select import Choice

NAME = "gn_deploy_group_norm"
KERNELS = Path(__file__).parent / "sources" / "kernels"
_MACROS = {"float32": "GN_F32", "float16": "GN_F16", "bfloat16": "GN_BF16"}
_BODIES = {
    ("nchw", "warp"): ("nchw_warp.h", "nchw_warp<{dtype}, kEpilogue, {vectors}>"),
    ("nchw", "block"): ("nchw_resident.h", "nchw_resident<gn::Cluster, {dtype}, kEpilogue, {vectors}>"),
    ("nhwc", "block"): ("nhwc_resident.h", "nhwc_resident<gn::Cluster, {dtype}, kEpilogue, {vectors}>"),
}
_BODIES |= {(layout, "cluster"): _BODIES[layout, "block"] for layout in LAYOUTS}
_SOURCE = """#include "fill.h"
#include "{header}"

#ifdef GN_EMULATOR
#define GN_CLUSTER
#define GN_ASSUME(what)
#else
#define GN_CLUSTER {cluster}
#define GN_ASSUME(what) __builtin_assume(what)
#endif

constexpr gn_problem kProblem = {problem};
constexpr gn_choice kChoice = {choice};
constexpr gn::Epilogue kEpilogue = gn::epilogue_of(kProblem);

extern "C" GN_KERNEL({bounds}) GN_CLUSTER
{name}({parameters}) {{
    gn_problem problem = kProblem;
{sizes}{assumptions}    const gn_buffers buffers = {{x, residual, scale, bias, modulation_scale, modulation_shift,
                                y, {sum}, nullptr, nullptr}};
    gn::{body}(gn::arguments_of(problem, kChoice, buffers));
}}
"""


@dataclass(frozen=True, slots=True)
class Specialised:
    """What a kernel is compiled for.

    1. Where ``samples`` or ``positions`` are ``dynamic``, the kernel is told them as 32-bit integers between its inputs
       and outputs, in this order, and ``problem`` holds the largest that it must work for.
    2. All pointers are multiples of 16, as TensorRT's are of 256.
    """

    problem: Problem
    choice: Choice
    dynamic_samples: bool = False
    dynamic_positions: bool = False

    @property
    def scalars(self) -> tuple[str, ...]:
        return ("samples",) * self.dynamic_samples + ("positions",) * self.dynamic_positions

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("y", "sum") if self.problem.has_sum else ("y",)

    @property
    def name(self) -> str:
        return NAME

    @property
    def large(self) -> tuple[str, ...]:
        """Tensors of x's shape."""
        return ("x", "residual", *self.outputs) if self.problem.has_residual else ("x", *self.outputs)

    def source(self) -> str:
        header, body = _BODIES[self.problem.layout, self.choice.variant]
        inputs = [f"const void *{name}" for name in INPUTS]
        scalars = [f"int32_t {name}" for name in self.scalars]
        outputs = [f"void *{name}" for name in self.outputs]
        cluster = self.choice.slices if self.choice.variant == "cluster" else 1
        return _SOURCE.format(
            header=header,
            body=body.format(dtype=_MACROS[self.problem.dtype], vectors=self.choice.vectors),
            cluster=f"__cluster_dims__({cluster}, 1, 1)" if cluster > 1 else "",
            problem=_problem(self.problem),
            choice=_choice(self.choice),
            bounds="gn::kWarps * 32, 4" if self.choice.variant == "warp" else "gn::kThreads, 2",
            name=NAME,
            parameters=", ".join([*inputs, *scalars, *outputs]),
            sizes="".join(f"    problem.{name} = {name};\n" for name in self.scalars),
            assumptions="".join(
                f"    GN_ASSUME(reinterpret_cast<uintptr_t>({name}) % 16 == 0);\n" for name in self.large
            ),
            sum="sum" if self.problem.has_sum else "nullptr",
        )

    def compile(self, capability: int) -> str:
        """PTX whose parameters are those that TensorRT passes. Raises ``GnDeployError`` else."""
        text = _ptx(self.source(), capability)
        ptx.check_parameters(text, len(INPUTS), len(self.scalars), len(self.outputs))
        return text


@cache
def _ptx(source: str, capability: int) -> str:
    """TensorRT asks for one kernel many times."""
    known = [c for c in nvrtc.capabilities() if c <= capability]
    return ptx.for_old_drivers(nvrtc.compile_ptx(source, max(known), KERNELS).ptx)


def _problem(p: Problem) -> str:
    numbers: dict[str, object] = {
        "samples": p.samples,
        "channels": p.channels,
        "positions": p.positions,
        "pitch": p.pitch,
        "output_pitch": p.output_pitch,
        "groups": p.groups,
        "epsilon": _float(p.epsilon),
        "layout": LAYOUTS.index(p.layout),
        "dtype": DTYPES.index(p.dtype),
        "parameter_dtype": DTYPES.index(p.parameter_dtype),
        "output_dtype": DTYPES.index(p.output_dtype),
        "activation": ACTIVATIONS.index(p.activation),
        "output_scale": _float(p.output_scale),
        "has_residual": int(p.has_residual),
        "has_sum": int(p.has_sum),
        "has_affine": p.has_affine,
        "has_modulation": p.has_modulation,
    }
    return _initializer(numbers)


def _choice(c: Choice) -> str:
    names = ("vectors", "threads", "slices", "slab", "units", "blocks", "shared", "ahead", "counters", "workspace")
    return _initializer({"variant": VARIANTS.index(c.variant), **{name: getattr(c, name) for name in names}})


def _initializer(fields: dict[str, object]) -> str:
    return "{" + ", ".join(f"/* {name} */ {value}" for name, value in fields.items()) + "}"


def _float(value: float) -> str:
    """Exactly the float32 that the library would be given."""
    return f"{float(np.float32(value)).hex()}f"
