"""A tensor split, each part normalized on its own and joined again: one site when it is one GroupNorm, else many."""

import numpy as np
import onnx
import pytest

import gn_deploy as gn

HELD = """float[1] one = {1}, float[1] zero = {0}, int64[3] s = {0,1,-1}, float[4,1,1] w = {1,2,3,4},
  float[4,1,1] u = {5,6,7,8}, int64[1] i0 = {0}, int64[1] i1 = {1}, int64[1] i4 = {4}, int64[1] i8 = {8},
  int64[1] i3 = {3}, int64[1] i7 = {7}, float[4] ones = {1,1,1,1}, int64[2] uneven = {2,6}"""
SPLIT = "a, b = Split<axis = 1, num_outputs = 2>(x)"
SLICES = "a = Slice(x, i0, i4, i1) b = Slice(x, i4, i8, i1)"


def norm(name: str, epsilon: float = 0.001) -> str:
    """InstanceNormalization over all of ``name``, into ``name``n."""
    return f"""{name}v = Reshape({name}, s) {name}i = InstanceNormalization<epsilon = {epsilon}>({name}v, one, zero)
               {name}f = Shape({name}) {name}n = Reshape({name}i, {name}f)"""


def model(body: str, outputs: str = "float[N,8,H,W] y") -> onnx.ModelProto:
    head = f'<ir_version: 10, opset_import: ["": 18]> agraph (float[N,8,H,W] x, float[4,1,1] p) => ({outputs})'
    return onnx.parser.parse_model(f"{head} <{HELD}> {{ {body} }}")


@pytest.mark.parametrize("cut", [SPLIT, SLICES])
def test_two_groups(cut: str) -> None:
    made = model(f"{cut} {norm('a')} {norm('b')} y = Concat<axis = -3>(an, bn)")
    (site,) = gn.find(made)
    assert (site.form, site.spec.num_groups, site.spec.num_channels, site.scale) == ("split", 2, 8, None)
    lowered = gn.lower(made, "onnx+native")
    assert [d.wrote for d in lowered.decisions] == ["native"]
    assert [n.op_type for n in lowered.model.graph] == ["GroupNormalization"]


def test_their_parameters_are_joined() -> None:
    made = model(f"{SPLIT} {norm('a')} {norm('b')} am = Mul(an, w) bm = Add(bn, u) y = Concat<axis = 1>(am, bm)")
    (site,) = gn.find(made)
    assert site.scale is not None
    assert site.bias is not None
    np.testing.assert_array_equal(site.scale.array, [1, 2, 3, 4, 1, 1, 1, 1])
    np.testing.assert_array_equal(site.bias.array, [0, 0, 0, 0, 5, 6, 7, 8])
    assert [d.wrote for d in gn.lower(made, "onnx+native").decisions] == ["native"]


@pytest.mark.parametrize(
    "body",
    [
        f"{SPLIT} {norm('a')} {norm('b')} y = Concat<axis = 1>(bn, an)",
        f"{SPLIT} {norm('a')} {norm('b', 0.01)} y = Concat<axis = 1>(an, bn)",
        f"{SPLIT} {norm('a')} {norm('b')} bm = Mul(bn, p) y = Concat<axis = 1>(an, bm)",
        f"a, b = Split<axis = 1>(x, uneven) {norm('a')} {norm('b')} y = Concat<axis = 1>(an, bn)",
        f"a = Slice(x, i0, i4, i1) b = Slice(x, i3, i7, i1) {norm('a')} {norm('b')} y = Concat<axis = 1>(an, bn)",
        f"{SPLIT} {norm('a')} {norm('b')} bs = Relu(bn) y = Concat<axis = 1>(an, bs)",
    ],
    ids=["swapped", "other epsilon", "parameter at run time", "uneven", "overlapping", "Relu of one"],
)
def test_otherwise_each_is_its_own(body: str) -> None:
    made = model(body)
    sites = gn.find(made)
    assert {site.form for site in sites} == {"instance_norm"}
    assert {site.spec.num_groups for site in sites} == {1}
    assert len(sites) == 2


def test_a_part_that_is_read_elsewhere_stays() -> None:
    made = model(f"{SPLIT} {norm('a')} {norm('b')} y = Concat<axis = 1>(an, bn) z = Neg(an)",
                 "float[N,8,H,W] y, float[N,4,H,W] z")  # fmt: skip
    assert [site.form for site in gn.find(made)] == ["instance_norm"] * 2
