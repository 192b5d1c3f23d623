"""What is written around a normalization is found again as the same site, and keeps its numbers in every form."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import gn_deploy as gn
from gn_deploy.around.write import own_part
from gn_deploy.forms import FORMS
from gn_deploy.parity.operands import for_oracle
from gn_deploy.passes.lower import LowerGroupNorm
from gn_deploy.reference import group_norm
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.sites import find
from gn_deploy.spec import Activation, GroupNormSpec
from tests.forms.writing import WRITTEN, Affine, Shape, written

OPSETS = (13, 17, 18, 20, 21, 22)
FUSED = ("contrib", "plugin", "trt_plugins")
AXES = ("N", "C", "H", "W", "D")


@st.composite
def specs(draw: st.DrawFn) -> GroupNormSpec:
    groups = draw(st.sampled_from([1, 2, 3]))
    dtype = draw(st.sampled_from(["float32", "float32", "float16", "bfloat16"]))
    rank = draw(st.integers(2, 5))
    return GroupNormSpec(
        num_groups=groups,
        num_channels=groups * draw(st.sampled_from([2, 4])),
        epsilon=draw(st.sampled_from([1e-5, 1e-3])),
        rank=rank,
        dtype=dtype,
        channel_axis=draw(st.sampled_from([1, 1, -1])) if rank > 2 else 1,
        activation=draw(st.sampled_from(list(Activation))),
        residual=rank > 2 and draw(st.booleans()),
        scale_shift=rank > 2 and draw(st.booleans()),
        wide_affine=dtype != "float32" and draw(st.booleans()),
    )


def along(spec: GroupNormSpec, sizes: Sequence[int | str], *, full: bool = False, one: bool = False) -> Shape:
    """N, C and the spatial ``sizes`` (1 each unless ``full``) in the layout of ``spec``."""
    assert spec.rank is not None
    batch, channels, *inner = sizes[: spec.rank]
    inner = inner if full else [1] * len(inner)
    return [1 if one else batch, *([channels, *inner] if spec.channel_axis == 1 else [*inner, channels])]


@st.composite
def operands(draw: st.DrawFn, spec: GroupNormSpec) -> dict[str, tuple[bool, bool]]:
    """For each operand whether it has x's shape, and whether it is the same for all samples."""
    told = {}
    if spec.residual:
        told["residual"] = (draw(st.booleans()), False)
    if spec.scale_shift:
        which = draw(st.sampled_from([("scale",), ("shift",), ("scale", "shift")]))
        told |= {f"modulation_{name}": (False, draw(st.booleans())) for name in which}
    return told


def parameters(channels: int, which: str) -> tuple[Affine, Affine]:
    """Different for every channel, and exact in every type."""
    each = np.arange(channels, dtype=np.float32)
    return 0.5 + each / 8 if which in ("scale", "both") else None, each / 4 - 1.5 if which in ("bias", "both") else None


def numbers(model: ir.Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return RUNTIMES.require("onnx-reference").open(model, precision="float64").run(feeds)


def expected(spec: GroupNormSpec, form: str) -> GroupNormSpec:
    """A fused kernel computes scale and bias in float32, asked for or not; nothing is said of it in float32."""
    return replace(spec, wide_affine=spec.dtype != "float32") if form in FUSED else spec


@settings(max_examples=30, deadline=None)
@given(
    spec=specs(),
    which=st.sampled_from(["none", "scale", "bias", "both"]),
    dynamic=st.booleans(),
    keep_sum=st.booleans(),
    to=st.sampled_from(WRITTEN),
    data=st.data(),
)
@pytest.mark.parametrize("form", WRITTEN)
def test_written_then_found_then_lowered(form, spec, which, dynamic, keep_sum, to, data):  # type: ignore[no-untyped-def]
    own = own_part(spec, FORMS.require(form).fuses)
    possible = [opset for opset in OPSETS if FORMS.require(form).legal(own, opset)]
    assume(possible and not (spec.rank == 2 and spec.num_groups * 2 > spec.num_channels))
    opset = data.draw(st.sampled_from(possible))
    shared = data.draw(operands(spec))
    keep_sum = keep_sum and spec.residual
    sizes = [2, spec.num_channels, 3, 5, 2]
    names = [spec.num_channels if n == "C" else n for n in AXES] if dynamic else sizes
    shapes = [
        {n: along(spec, kind, full=full, one=one) for n, (full, one) in {"x": (True, False), **shared}.items()}
        for kind in (names, sizes)
    ]
    declared, given_ = shapes
    model = written(
        form, spec, parameters(spec.num_channels, which), declared.pop("x"), opset, declared, keep_sum=keep_sum
    )
    if form != "native18":  # deprecated before it was right: the checker refuses every use of it
        onnx.checker.check_model(ir.to_proto(model), full_check=True)

    (site,) = find(model).sites
    assert site.form == form
    told = site.spec
    if which == "none":  # without scale and bias nothing is applied before the result is rounded, nor after
        told = replace(told, wide_affine=expected(spec, form).wide_affine)
    assert told == expected(spec, form)
    assert {name: v.name for name, v in site.operands.items()} == {name: name for name in shared}
    apart = spec.scale_shift and form not in FUSED  # s and t may be computed from the sum, though not by one node
    assert (site.sum is not None) == (keep_sum and not apart)

    rng = np.random.default_rng(0)
    feeds = {name: rng.normal(1.0, 2.0, shape) for name, shape in given_.items()}
    around = for_oracle({n: a for n, a in feeds.items() if n != "x"}, feeds["x"], spec.channel_axis)
    scale, bias = parameters(spec.num_channels, which)
    wanted = group_norm(feeds["x"], spec, scale, bias, **around)
    before = numbers(model, feeds)
    # epsilon is an attribute in float32; an activation that is no operator has constants of the model's type
    rounding = 2.0**-7 if spec.dtype != "float32" else 1e-5
    np.testing.assert_allclose(before["y"], wanted, rtol=rounding, atol=rounding)

    lowered, (decision,) = gn.lower(model, f"onnx+{to}")
    assert "not proved" not in decision.decision.reason
    after = numbers(lowered, feeds)
    assert list(after) == list(before)
    for name in before:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-2 if "16" in spec.dtype else 1e-5, atol=1e-4)
    assert not LowerGroupNorm(f"onnx+{to}")(lowered).modified
