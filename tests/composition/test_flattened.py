"""Norms over (N, C, H W) of a tensor (N, C, H, W): what is left when an optimizer joins the reshapes of attention."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import gn_deploy as gn
from gn_deploy.reference import group_norm
from gn_deploy.runtimes import RUNTIMES
from tests.forms.writing import WRITTEN

OPSETS = {"native18": 18}


def joined(batch: str, size: str, opset: int = 21) -> ir.Model:
    """GroupNorm with 4 groups, scale and bias per channel applied to tokens, SiLU and a Transpose after it."""
    text = f"""<ir_version: 10, opset_import: ["": {opset}]> agraph
        (float[{batch},8,{size},5] x) => (float[{batch},tokens,8] y)
        <int64[3] groups = {{0, 4, -1}}, int64[3] tokens = {{0, 8, -1}}, float[4] one = {{1, 1, 1, 1}},
         float[4] zero = {{0, 0, 0, 0}}, float[8,1] w = {{1, 2, 3, 4, 5, 6, 7, 8}},
         float[8,1] b = {{8, 7, 6, 5, 4, 3, 2, 1}}>
        {{ v = Reshape(x, groups)
           n = InstanceNormalization(v, one, zero)
           t = Reshape(n, tokens)
           m = Mul(t, w)
           a = Add(m, b)
           g = Sigmoid(a)
           s = Mul(a, g)
           y = Transpose<perm = [0, 2, 1]>(s) }}"""
    return ir.from_proto(onnx.parser.parse_model(text))


@pytest.mark.parametrize(
    ("form", "batch", "size"),
    [
        pytest.param(form, *sizes, marks=[pytest.mark.slow] * (at % 2 == dynamic))
        for at, form in enumerate(WRITTEN)
        for dynamic, sizes in enumerate([("2", "6"), ("N", "H")])
    ],
)
def test_it_is_found_written_and_computes_the_same(form: str, batch: str, size: str) -> None:
    model = joined(batch, size, OPSETS.get(form, 21))
    (site,) = gn.find(model)
    spec = site.spec
    assert (spec.num_groups, spec.num_channels, spec.rank, spec.activation) == (4, 8, 3, "silu")
    assert site.flattened

    lowered = gn.lower(model, f"onnx+{form}")

    assert [d.wrote for d in lowered.decisions] == [None if form == site.form else form]
    if form != "native18":  # the checker refuses every use of it
        onnx.checker.check_model(ir.to_proto(lowered.model), full_check=True)
    x = np.random.default_rng(0).normal(3.0, 2.0, (2, 8, 6, 5))
    session = RUNTIMES.require("onnx-reference").open(lowered.model, precision="float64")
    flat = group_norm(x.reshape(2, 8, 30), spec, np.arange(1.0, 9.0), np.arange(8.0, 0.0, -1.0))
    # float64 but for epsilon, an attribute in float32: 2^-25 of it, times |y| < 40, times at most 1/2
    np.testing.assert_allclose(session.run({"x": x})["y"], flat.transpose(0, 2, 1), rtol=0, atol=2**-25 * 40 / 2)
    assert gn.compare(model, lowered.model).held
    assert not any(d.wrote for d in gn.lower(lowered.model, f"onnx+{form}").decisions)
