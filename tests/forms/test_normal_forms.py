"""What editors and exporters put between and into the nodes of a norm is seen through, or is the reason it is not."""

import onnx
import pytest

import gn_deploy as gn
from gn_deploy.api import inspect
from gn_deploy.forms.base import GroupNormSite

DYNAMIC = "(float[N,8,H,W] x) => (float[N,8,H,W] y)"
STATIC = "(float[2,8,4,4] x) => (float[2,8,4,4] y)"
HELD = """int64[3] s = {0,4,-1}, float[4] one = {1,1,1,1}, float[4] zero = {0,0,0,0}, float eps = {0.001},
  float[8,1,1] w = {1,2,3,4,5,6,7,8}, int64[1] i0 = {0}, int64[1] i1 = {1}, int64[1] i2 = {2}, int64[1] i4 = {4},
  int64[1] last = {-1}, int64[1] lowest = {-9223372036854775808}, float two = {2}, float half = {0.5}, float f1 = {1},
  float f0 = {0}, float thirty2 = {32}, float thirty1 = {31}, float inverse = {0.03125}, int64[4] ints = {1,1,1,1},
  int64[4] noughts = {0,0,0,0}, int64 scalar = {0}, double wide = {1}, double[4] d1 = {1,1,1,1}, bool yes = {1},
  double[4] d0 = {0,0,0,0}, int64[4] zeros = {0,8,-1,4}, int64[3] literal = {2,4,-1},
  float[4] columns = {1,2,3,4}, float[8,1,1] flat = {5,5,5,5,5,5,5,5}"""
NORM = "n = InstanceNormalization<epsilon = 0.001>(v, one, zero)"
ROWS = "v = Reshape(x, s)"
VIEW = f"{ROWS} {NORM} f = Shape(x)"
CENTERED = f"{ROWS} m = ReduceMean(v, i2) c = Sub(v, m)"
SQUARES = f"{CENTERED} q = Mul(c, c) a = ReduceMean(q, i2)"
DIVIDED = "e = Add(a, eps) d = Sqrt(e) n = Div(c, d) f = Shape(x) y = Reshape(n, f)"
NAMED = "InstanceNormalization<epsilon = 0.001>"


def model(body: str, head: str = DYNAMIC, opset: int = 18, ir_version: int = 10) -> onnx.ModelProto:
    text = f'<ir_version: {ir_version}, opset_import: ["": {opset}]> agraph {head} <{HELD}> {{ {body} }}'
    return onnx.parser.parse_model(text)


def only(proto: onnx.ModelProto, target: str = "onnx+native") -> GroupNormSite:
    """The one site, once it has been written otherwise and proved equal."""
    (site,) = gn.find(proto)
    assert (site.spec.num_groups, site.spec.num_channels, site.spec.epsilon) == (4, 8, 0.001)
    (decision,) = gn.lower(proto, target).decisions
    assert decision.wrote == target.partition("+")[2], decision
    return site


SEEN_THROUGH = {
    "CastLike": f"o = CastLike(ints, x) z = CastLike(noughts, x) {ROWS} n = {NAMED}(v, o, z)",
    "ConstantOfShape": f"""o = ConstantOfShape<value = float[1] {{1}}>(i4) z = ConstantOfShape(i4) {ROWS}
                           n = {NAMED}(v, o, z)""",
    "Expand": f"{ROWS} p = Shape(v) g = Slice(p, i1, i2) o = Expand(f1, g) z = Expand(f0, g) n = {NAMED}(v, o, z)",
    "Dropout": f"i = Identity(x) j = Dropout(i) v = Reshape(j, s) k = {NAMED}(v, one, zero) n = Dropout(k)",
    "Transpose": f"a = Transpose<perm = [0,2,3,1]>(x) b = Transpose<perm = [0,3,1,2]>(a) v = Reshape(b, s) {NORM}",
    "Expand to the same": f"b = Shape(x) a = Expand(x, b) v = Reshape(a, s) {NORM}",
    "Cast and back": f"a = Cast<to = 11>(x) b = Cast<to = 1>(a) v = Reshape(b, s) {NORM}",
    "part of a Shape": f"""a = Shape<start = 0, end = 1>(x) t = Concat<axis = 0>(a, i4, last)
                           v = Reshape(x, t) {NORM}""",
}
BACK = {
    "negative steps": "p2 = Shape(x) q = Slice(p2, last, lowest, i0, last) f = Slice(q, last, lowest, i0, last)",
    "Where": """p2 = Shape(x) k2 = Shape(p2) o2 = ConstantOfShape<value = int64[1] {1}>(k2) m = Mul(o2, last)
                q = Equal(p2, m) f = Where(q, o2, p2)""",
    "parts": "p2 = Shape<start = 0, end = 1>(x) q = Shape<start = 1>(x) f = Concat<axis = 0>(p2, q)",
}


@pytest.mark.parametrize("before", SEEN_THROUGH.values(), ids=SEEN_THROUGH)
@pytest.mark.parametrize("back", BACK.values(), ids=BACK)
def test_seen_through(before: str, back: str) -> None:
    site = only(model(f"{before} {back} r = Reshape(n, f) y = Mul(r, w)"))
    assert (site.input.name, site.output.name) == ("x", "y")
    assert site.scale is not None
    assert site.scale.array is not None
    assert list(site.scale.array) == [*range(1, 9)]
    assert site.bias is None


@pytest.mark.parametrize(
    ("after", "scale", "bias"),
    [
        ("y = Sub(r, w)", None, [-1, -2, -3, -4, -5, -6, -7, -8]),
        ("t = Div(r, w) y = Add(t, w)", [1 / c for c in range(1, 9)], [*range(1, 9)]),
        ("q = Mul(w, w) b = Sqrt(q) m = Neg(w) t = Mul(r, b) y = Add(t, m)", [*range(1, 9)], [-c for c in range(1, 9)]),
        ("t = Mul(r, two) y = Add(t, f1)", [2] * 8, [1] * 8),
        ("p = Transpose<perm = [0,2,3,1]>(r) q = Transpose<perm = [0,3,1,2]>(p) y = Add(q, w)", None, [*range(1, 9)]),
        ("a = Expand(w, f) y = Mul(r, w)", [*range(1, 9)], None),
    ],
)
def test_folded_into_scale_and_bias(after: str, scale: list[float] | None, bias: list[float] | None) -> None:
    site = only(model(f"{VIEW} r = Reshape(n, f) {after}"))
    assert site.output.name == "y"
    for held, wanted in ((site.scale, scale), (site.bias, bias)):
        assert (held is None) == (wanted is None)
        if held is not None:
            assert held.array is not None
            assert [float(v) for v in held.array] == pytest.approx(wanted, rel=2**-24)


@pytest.mark.parametrize(
    ("body", "head"),
    [
        (f"{VIEW} r = Reshape(n, f) y = Sub(w, r)", DYNAMIC),  # -GN(x) + w
        (f"{VIEW} r = Reshape(n, f) y = Sub(r, p)", DYNAMIC.replace("x)", "x, float[8,1,1] p)", 1)),
        (f"{VIEW} r = Reshape(n, f) y = Div(r, p)", DYNAMIC.replace("x)", "x, float[8,1,1] p)", 1)),
        (f"{VIEW} r = Reshape(n, f) y = Mul(r, columns)", STATIC),
        (f"{VIEW} r = Reshape(n, f) z = Relu(r) y = Mul(r, w)", DYNAMIC.replace("y)", "y, float[N,8,H,W] z)")),
    ],
    ids=["reversed", "minus run time", "by run time", "columns", "used before"],
)
def test_what_is_not_its_affine_stays_after_it(body: str, head: str) -> None:
    site = only(model(body, head))
    assert (site.output.name, site.scale, site.bias) == ("r", None, None)


OTHERS = {
    "allowzero": f"v = Reshape<allowzero = 1>(x, literal) {NORM} f = Shape(x) y = Reshape<allowzero = 1>(n, f)",
    "zeros": f"{ROWS} {NORM} y = Reshape(n, zeros)",
    "sum of squares": f"{CENTERED} q = ReduceSumSquare(c, i2) a = Div(q, thirty2) {DIVIDED}",
    "inverse count": f"""{ROWS} t = ReduceSum(v, last) m = Mul(t, inverse) c = Sub(v, m) q = Mul(c, c)
                         u = ReduceSum(q, i2) a = Mul(inverse, u) {DIVIDED}""",
    "squeezed": f"""{ROWS} m = ReduceMean<keepdims = 0>(v, last) b = Unsqueeze(m, i2) c = Sub(v, b) q = Pow(c, two)
                    a = ReduceMean(q, last) {DIVIDED}""",
    "half power": f"{SQUARES} g = Add(eps, a) d = Pow(g, half) n = Div(c, d) f = Shape(x) y = Reshape(n, f)",
    "floor of 0": f"{ROWS} m = ReduceMean(v, i2) c = Sub(v, m) q = Mul(v, v) t = ReduceMean(q, i2) k = Mul(m, m) "
    f"u = Sub(t, k) a = Clip(u, f0) {DIVIDED}",
}


@pytest.mark.parametrize("body", OTHERS.values(), ids=OTHERS)
def test_other_spellings(body: str) -> None:
    assert only(model(body, STATIC)).output.name == "y"


OLD = {
    9: f"""p = Shape(x) a = Slice<starts = [0], ends = [1]>(p) b = Slice<starts = [1], ends = [4]>(p)
           t = Concat<axis = 0>(a, i4, last) v = Reshape(x, t) {NORM} f = Concat<axis = 0>(a, b) y = Reshape(n, f)""",
    11: f"""p = Shape(x) a = Gather<axis = 0>(p, scalar) u = Unsqueeze<axes = [0]>(a)
            t = Concat<axis = 0>(u, i4, last) v = Reshape(x, t) {NORM} f = Shape(x) y = Reshape(n, f)""",
    10: f"""{ROWS} m = ReduceMean<axes = [-1]>(v) c = Sub(v, m) q = Mul(v, v) t = ReduceMean<axes = [2]>(q)
            k = Mul(m, m) u = Sub(t, k) a = Clip<min = 0.0>(u) {DIVIDED}""",
}


@pytest.mark.parametrize("opset", OLD)
def test_old_opsets(opset: int) -> None:
    form = "primitives" if "Instance" in OLD[opset] else "instance_norm"
    assert only(model(OLD[opset], opset=opset, ir_version=4), f"onnx+{form}").output.name == "y"


def test_initializers_are_inputs_before_ir_version_4() -> None:
    head = "(float[N,8,H,W] x, int64[3] s, float[4] one, float[4] zero, float[8,1,1] w) => (float[N,8,H,W] y)"
    site = only(model(f"{VIEW} r = Reshape(n, f) y = Mul(r, w)", head, ir_version=3))
    assert site.scale is not None


def test_types_wider_on_the_way_are_told() -> None:
    inside = f"a = CastLike(x, wide) v = Reshape(a, s) n = {NAMED}(v, d1, d0)"
    site = only(model(f"{inside} f = Shape(x) r = Reshape(n, f) b = CastLike(r, x) y = Mul(b, w)"), "onnx+primitives")
    assert (site.input.name, site.spec.dtype, site.spec.stash_dtype) == ("x", "float32", "float64")


LEFT = {
    f"v = Reshape<allowzero = 1>(x, s) {NORM} f = Shape(x) y = Reshape(n, f)": "does not hold exactly",
    f"{CENTERED} q = ReduceSumSquare(c, i2) a = Div(q, thirty1) {DIVIDED}": "a sum of 32 squares is divided by 31",
    f"{ROWS} n = MeanVarianceNormalization<axes = [2]>(v) f = Shape(x) y = Reshape(n, f)": "outside the root",
    f"{SQUARES} b = Mul(a, two) {DIVIDED.replace('Add(a', 'Add(b')}": "multiplied by 2",
    f"""t = Dropout(x, half, yes) g = Reshape(t, s) {ROWS} m = ReduceMean(v, i2) c = Sub(g, m) q = Mul(c, c)
        a = ReduceMean(q, i2) {DIVIDED}""": "is not the same value",
    f"""{ROWS} t = Transpose<perm = [0,2,1]>(v) u = Reshape(t, s) n = {NAMED}(u, one, zero) f = Shape(x)
        y = Reshape(n, f)""": "does not come back to the shape",
    f"""{ROWS} m = ReduceMean(v, i2) k = Cast<to = 10>(m) j = Cast<to = 1>(k) c = Sub(v, j) q = Mul(c, c)
        a = ReduceMean(q, i2) {DIVIDED}""": "is rounded by a Cast",
    f"""{ROWS} m = ReduceMean(v, i2) c = Sub(v, m) q = Mul(v, v) t = ReduceMean(q, i2) k = Mul(m, m)
        u = Sub(t, k) a = Clip(u, half) {DIVIDED}""": "does more than keep the variance from below 0",
}


@pytest.mark.parametrize(("body", "reason"), LEFT.items(), ids=LEFT.values())
def test_left_alone(body: str, reason: str) -> None:
    found = inspect(model(body, STATIC))
    assert not found.sites
    assert any(reason in miss.reason for miss in found.near_misses), found.near_misses
