"""The one property of every form: write it, find it again, same spec, same numbers."""

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gn_deploy.forms import FORMS
from gn_deploy.reference import group_norm
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.sites import find
from gn_deploy.spec import GroupNormSpec
from tests.forms.writing import WRITTEN, affine, write

OPSETS = (13, 17, 18, 20, 21, 22, 23)


@st.composite
def specs(draw: st.DrawFn) -> GroupNormSpec:
    groups = draw(st.sampled_from([1, 2, 3, 8]))
    rank = draw(st.integers(2, 5))
    dtype = draw(st.sampled_from(["float32", "float16", "bfloat16", "float64"]))
    return GroupNormSpec(
        num_groups=groups,
        num_channels=groups * draw(st.integers(1, 3)),
        epsilon=draw(st.sampled_from([1e-5, 1e-6, 1e-3])),
        rank=rank,
        dtype=dtype,
        stash_dtype="float64" if dtype == "float64" else "float32",
        channel_axis=draw(st.sampled_from([1, -1])) if rank > 2 else 1,
    )


@settings(max_examples=120, deadline=None)
@given(
    spec=specs(),
    which=st.sampled_from(["none", "scale", "bias", "both"]),
    data=st.data(),
    dynamic=st.booleans(),
    batch=st.integers(1, 3),
    sizes=st.tuples(st.integers(2, 5), st.integers(2, 5), st.integers(2, 4)),
)
@pytest.mark.parametrize("form", WRITTEN)
def test_written_then_found_is_the_same(form, spec, which, data, dynamic, batch, sizes):  # type: ignore[no-untyped-def]
    legal = [opset for opset in OPSETS if FORMS.require(form).legal(spec, opset)]
    assume(legal)
    opset = data.draw(st.sampled_from(legal))
    assume(spec.num_channels > 1 and not (spec.rank == 2 and spec.num_groups == spec.num_channels))
    spatial = sizes[: spec.rank - 2]
    shape = (batch, spec.num_channels, *spatial) if spec.channel_axis == 1 else (batch, *spatial, spec.num_channels)
    names = ["N", *"HWD"[: spec.rank - 2]]
    names.insert(1 if spec.channel_axis == 1 else len(names), "C")
    declared = [spec.num_channels if n == "C" else n for n in names] if dynamic else shape
    scale, bias = affine(spec, which)
    model = write(form, spec, scale, bias, declared, opset)
    if form != "native18":  # deprecated before it was right: the checker refuses every use of it
        onnx.checker.check_model(ir.to_proto(model), full_check=True)

    found = find(model)

    assert [s.form for s in found.sites] == [form], found.near_misses
    (site,) = found.sites
    # contrib's kernel computes all of it in float32, whatever was asked for
    assert replace(site.spec, channel_axis=spec.channel_axis, wide_affine=False) == spec
    for held, wanted in ((site.scale, scale), (site.bias, bias)):
        assert (held is None) == (wanted is None)
        if held is not None:
            np.testing.assert_array_equal(held.array, wanted)
    session = RUNTIMES.require("onnx-reference").open(model, precision="float64")
    x = np.random.default_rng(0).normal(1.0, 2.0, shape)
    actual = session.run({"x": x})["y"]
    # float64 but for epsilon, an attribute in float32: 2^-25 of it, times |y| < 8, times at most 1/2
    np.testing.assert_allclose(actual, group_norm(x, spec, scale, bias), rtol=0, atol=2**-25 * 8 / 2)


def test_native18_stays_in_its_opsets() -> None:
    spec = GroupNormSpec(4, 8, rank=4)
    assert not FORMS.require("native18").legal(spec, 21)
    assert not FORMS.require("native").legal(spec, 20)


def test_bf16_instance_norm_needs_opset_22() -> None:
    spec = GroupNormSpec(4, 8, rank=4, dtype="bfloat16")
    assert "22" in FORMS.require("instance_norm").legal(spec, 21).reason
    assert FORMS.require("instance_norm").legal(spec, 22)
