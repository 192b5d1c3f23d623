"""The smallest reproductions of what optimizers write and exporters do not."""

import onnx
import onnx_ir as ir
import pytest

import gn_deploy as gn
from gn_deploy.forms.base import GroupNormSite


def sites(text: str, opset: int = 18) -> list[GroupNormSite]:
    header = f'<ir_version: 10, opset_import: ["": {opset}, "com.microsoft": 1]> agraph'
    return gn.find(ir.from_proto(onnx.parser.parse_model(f"{header} {text}")))


INSTANCE_NORM = """<int64[3] groups = {0, 4, -1}, float[4] one = {1, 1, 1, 1}, float[4] zero = {0, 0, 0, 0}>
    { a = %s
      v = Reshape(a, groups)
      n = InstanceNormalization(v, one, zero)
      full = Shape(a)
      y = Reshape(n, full) }"""


@pytest.mark.parametrize(
    "before",
    [
        'com.microsoft.FusedConv <activation = "Relu", kernel_shape = [1, 1]> (x, w)',
        "com.microsoft.QuickGelu <alpha = 1.0> (x)",
        "com.microsoft.Gelu(x)",
        "com.microsoft.FastGelu(x)",
    ],
)
def test_shapes_are_known_behind_what_onnx_runtime_fuses(before: str) -> None:
    (site,) = sites("(float[2,8,5,5] x, float[8,8,1,1] w) => (float[2,8,5,5] y)" + INSTANCE_NORM % before)
    assert (site.spec.num_groups, site.spec.num_channels, site.spec.rank) == (4, 8, 4)


def test_ones_and_zeros_do_not_use_up_the_scale_and_the_bias() -> None:
    """ONNX Runtime inlines a GroupNormalization-18 whose scale per group is 1 with a Mul and an Add of its own."""
    (site,) = sites(
        """(float[2,8,5,5] x) => (float[2,8,5,5] y)
        <float[8,1,1] w = {1, 2, 3, 4, 5, 6, 7, 8}, float[8,1,1] b = {8, 7, 6, 5, 4, 3, 2, 1},
         int64[3] groups = {0, 4, -1}, int64[4] full = {0, 8, 5, 5}, float[4] one = {1, 1, 1, 1},
         float[4] zero = {0, 0, 0, 0}, float[1,4,1] ones = {1, 1, 1, 1}, float[1,4,1] zeros = {0, 0, 0, 0}>
        { v = Reshape(x, groups)
          n = InstanceNormalization(v, one, zero)
          m = Mul(n, ones)
          a = Add(m, zeros)
          back = Reshape(a, full)
          scaled = Mul(back, w)
          y = Add(scaled, b) }"""
    )
    assert site.scale is not None
    assert site.bias is not None
    assert site.output.name == "y"


def test_a_cast_to_the_same_type_is_no_start() -> None:
    """In the body that ONNX Runtime inlines the shape is that of the value before the Cast."""
    (site,) = sites(
        """(float[N,8,H,W] x) => (float[N,8,H,W] y)
        <int64[3] groups = {0, 4, -1}, float[4] one = {1, 1, 1, 1}, float[4] zero = {0, 0, 0, 0}>
        { a = Relu(x)
          full = Shape(a)
          c = Cast <to = 1> (a)
          v = Reshape(c, groups)
          n = InstanceNormalization(v, one, zero)
          y = Reshape(n, full) }"""
    )
    assert site.input.name == "a"


def test_reshapes_that_were_fused_lead_to_another_rank() -> None:
    """Attention over pixels: (N, C, H W) is normalized, and onnxscript leaves out the Reshape that made it."""
    (site,) = sites(
        """(float[2,8,5,5] x) => (float[2,8,25] y)
        <int64[3] groups = {2, 4, 50}, int64[3] tokens = {2, 8, 25}, float[4] one = {1, 1, 1, 1},
         float[4] zero = {0, 0, 0, 0}>
        { v = Reshape(x, groups)
          n = InstanceNormalization(v, one, zero)
          y = Reshape(n, tokens) }"""
    )
    assert (site.spec.num_groups, site.spec.num_channels, site.spec.rank) == (4, 8, 3)
    assert site.flattened
