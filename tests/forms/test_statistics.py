"""One number per group, however laid out and repeated, is followed to its own elements, or the site is refused."""

import numpy as np
import onnx
import pytest

import gn_deploy as gn
from gn_deploy.api import inspect
from gn_deploy.forms.base import GroupNormSite

HELD = """float eps = {0.001}, int64[1] i1 = {1}, int64[1] i2 = {2}, int64[1] last = {-1}, int64[2] a12 = {1,2},
  int64[2] a13 = {1,3}, int64[2] a02 = {0,2}, float[4] one = {1,1,1,1}, int64[3] a124 = {1,2,4},
  float[8] w = {1,2,3,4,5,6,7,8}, float[8] b = {8,7,6,5,4,3,2,1}, int64[3] rows = {0,4,-1},
  int64[4] nchw = {0,8,1,1}, int64[5] nhwgk = {0,4,4,4,2}, int64[4] nhwc = {0,1,1,8}, int64[3] each = {1,1,2},
  int64[3] wide = {2,4,2}, int64[8] group = {0,0,1,1,2,2,3,3}, int64[8] turn = {0,1,2,3,0,1,2,3},
  int64[2] all2 = {2,4}, int64[4] outer = {2,1,1,8}, int64[5] spread5 = {2,1,1,4,2}, int64[2] tile2 = {1,2}"""
MOMENTS = "m = ReduceMean(v, {0}) c = Sub(v, m) q = Mul(c, c) a = ReduceMean(q, {0}) e = Add(a, eps) d = Sqrt(e)"
ROWS = f"v = Reshape(x, rows) {MOMENTS.format('i2')} r = Reciprocal(d)"
NHWC = f"v = Reshape(x, nhwgk) {MOMENTS.format('a124')} r = Reciprocal(d)"
APPLIED = "t = Sub(x, mc) y = Mul(t, rc)"


def model(body: str, shape: str = "2,8,4,4", opset: int = 18) -> onnx.ModelProto:
    head = f'<ir_version: 10, opset_import: ["": {opset}]> agraph (float[{shape}] x) => (float[{shape}] y)'
    return onnx.parser.parse_model(f"{head} <{HELD}> {{ {body} }}")


def only(proto: onnx.ModelProto, axis: int = 1) -> GroupNormSite:
    (site,) = gn.find(proto)
    assert (site.spec.num_groups, site.spec.num_channels, site.spec.channel_axis) == (4, 8, axis)
    assert [d.wrote for d in gn.lower(proto, "onnx+native").decisions] == ["native"]
    return site


REPEATED = {
    "Expand": "{0}e = Expand({0}, wide) {0}c = Reshape({0}e, nchw)",
    "Tile": "{0}e = Tile({0}, each) {0}c = Reshape({0}e, nchw)",
    "Concat": "{0}e = Concat<axis = 2>({0}, {0}) {0}c = Reshape({0}e, nchw)",
    "Gather": "{0}s = Squeeze({0}, i2) {0}e = Gather<axis = 1>({0}s, group) {0}c = Reshape({0}e, nchw)",
}


@pytest.mark.parametrize("how", REPEATED.values(), ids=REPEATED)
@pytest.mark.parametrize("shape", ["2,8,4,4", "2,8,H,W"])
def test_repeated_for_the_channels(how: str, shape: str) -> None:
    site = only(model(f"{ROWS} {how.format('m')} {how.format('r')} {APPLIED}", shape))
    assert (site.input.name, site.output.name) == ("x", "y")


MISREAD = {
    "channels in turn": "{0}s = Squeeze({0}, i2) {0}e = Gather<axis = 1>({0}s, turn) {0}c = Reshape({0}e, nchw)",
    "tiled": "{0}s = Squeeze({0}, i2) {0}e = Tile({0}s, tile2) {0}c = Reshape({0}e, nchw)",
    "joined": "{0}s = Squeeze({0}, i2) {0}e = Concat<axis = 1>({0}s, {0}s) {0}c = Reshape({0}e, nchw)",
}


@pytest.mark.parametrize("how", MISREAD.values(), ids=MISREAD)
def test_repeated_otherwise_is_refused(how: str) -> None:
    found = inspect(model(f"{ROWS} {how.format('m')} {how.format('r')} {APPLIED}"))
    assert not found.sites
    assert any("does not repeat each group's number" in miss.reason for miss in found.near_misses), found.near_misses


def test_channels_last_in_place_and_repeated() -> None:
    assert only(model(f"{NHWC} n = Mul(c, r) f = Shape(x) y = Reshape(n, f)", "2,4,4,8"), -1).output.name == "y"
    how = "{0}e = Expand({0}, spread5) {0}c = Reshape({0}e, outer)"
    body = f"{NHWC} {how.format('m')} {how.format('r')} t = Sub(x, mc) n = Mul(t, rc) k = Mul(n, w) y = Add(k, b)"
    site = only(model(body, "2,4,4,8"), -1)
    assert site.scale is not None
    np.testing.assert_array_equal(site.scale.array, [*range(1, 9)])


def test_channels_last_with_the_parameters_folded_in() -> None:
    how = "{0}e = Expand({0}, spread5) {0}c = Reshape({0}e, outer)"
    folded = "g = Mul(rc, w) h = Mul(mc, g) o = Sub(b, h) p = Mul(x, g) y = Add(p, o)"
    site = only(model(f"{NHWC} {how.format('m')} {how.format('r')} {folded}", "2,4,4,8"), -1)
    assert site.form == "statistics_affine"


def test_the_mean_of_the_batch_is_another_mean() -> None:
    body = f"{ROWS} u = ReduceMean(v, a02) t = Sub(v, u) j = Mul(t, r) f = Shape(x) y = Reshape(j, f)"
    found = inspect(model(body))
    assert not found.sites
    assert any("different axes" in miss.reason or "axes (0, 2)" in miss.reason for miss in found.near_misses)


def test_a_square_where_broadcasting_is_ambiguous_is_not_guessed() -> None:
    """4 samples of 4 groups: (4, 4) against (4, 4, 4) lines samples up with groups."""
    body = """v = Reshape(x, rows)
               m = ReduceMean(v, i2) c = Sub(v, m) q = Mul(c, c) a = ReduceMean<keepdims = 0>(q, i2)
               e = Add(a, eps) d = Sqrt(e) n = Div(c, d) f = Shape(x) y = Reshape(n, f)"""
    found = inspect(model(body, "4,4,4"))
    assert not found.sites
    assert any("its own elements" in miss.reason for miss in found.near_misses), found.near_misses


BATCH = """s = Shape(x) n0 = Gather<axis = 0>(s, zero1) k = Mul(n0, four1) t = Concat<axis = 0>(i1, k, last)
  v = Reshape(x, t)"""


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", ["2,8,4,4", "N,8,H,W"])
def test_batch_norm_of_a_merged_view(training: bool, shape: str) -> None:
    held = "int64[1] zero1 = {0}, int64[1] four1 = {4}, float[1] f1 = {1}, float[1] f0 = {0}, int64[2] a02 = {0,2}"
    ones = "p = Shape<start = 1, end = 2>(v) o = Expand(f1, p) z = Expand(f0, p)"
    if training:
        norm = "n, rm, rv = BatchNormalization<epsilon = 0.001, training_mode = 1>(v, o, z, z, o)"
    else:
        norm = """m = ReduceMean<keepdims = 0>(v, a02) mk = ReduceMean(v, a02) c = Sub(v, mk) q = Mul(c, c)
                  a = ReduceMean<keepdims = 0>(q, a02) n = BatchNormalization<epsilon = 0.001>(v, o, z, m, a)"""
    head = f'<ir_version: 10, opset_import: ["": 18]> agraph (float[{shape}] x) => (float[{shape}] y)'
    held += ", int64[1] i1 = {1}, int64[1] last = {-1}"
    body = f"{BATCH} {ones} {norm} f = Shape(x) y = Reshape(n, f)"
    made = onnx.parser.parse_model(f"{head} <{held}> {{ {body} }}")
    site = only(made)
    assert site.form == "batch_norm"


BATCH_LEFT = {
    "whole batch": ("n, rm, rv = BatchNormalization<training_mode = 1>(x, w8, b8, b8, w8) y = Identity(n)",
                    "over the whole batch"),
    "other rows": ("v = Reshape(x, r16) n, rm, rv = BatchNormalization<training_mode = 1>(v, w16, w16, w16, w16)"
                   " f = Shape(x) y = Reshape(n, f)", "no groups of channels"),
    "differs": ("v = Reshape(x, r8) n, rm, rv = BatchNormalization<training_mode = 1>(v, w8, b8, b8, w8) f = Shape(x)"
                " y = Reshape(n, f)", "not the same for the groups of every sample"),
    "inference": ("v = Reshape(x, r8) n = BatchNormalization(v, w8, b8, b8, w8) f = Shape(x) y = Reshape(n, f)", ""),
}  # fmt: skip


@pytest.mark.parametrize(("body", "reason"), BATCH_LEFT.values(), ids=BATCH_LEFT)
def test_batch_norms_that_are_not(body: str, reason: str) -> None:
    numbers = "1,2,3,4,5,6,7,8"
    held = f"""float[8] w8 = {{{numbers}}}, float[8] b8 = {{{numbers}}}, int64[3] r8 = {{1,8,-1}},
               int64[3] r16 = {{1,16,-1}}, float[16] w16 = {{{','.join('1' * 16)}}}"""
    head = '<ir_version: 10, opset_import: ["": 18]> agraph (float[2,8,4,4] x) => (float[2,8,4,4] y)'
    found = inspect(onnx.parser.parse_model(f"{head} <{held}> {{ {body} }}"))
    assert not found.sites
    assert any(reason in miss.reason for miss in found.near_misses) or not reason, found.near_misses
