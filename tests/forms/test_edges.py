"""One case for each way in which a reading or a rewrite once went wrong."""

import onnx
import onnx_ir as ir
import pytest

from gn_deploy.forms.base import GroupNormSite
from gn_deploy.graph.facts import Facts
from gn_deploy.passes.lower import LowerGroupNorm
from gn_deploy.sites import find

ONES = "int64[3] s = {0,4,-1}, float[4] one = {1,1,1,1}, float[4] zero = {0,0,0,0}"
TWO_PASS = """v = Reshape(x, s) m = ReduceMean<axes = [2]>(v) c = Sub(v, m) q = Mul(c, c) a = ReduceMean<axes = [2]>(q)
              e = Add(a, eps) d = Sqrt(e) n = Div(c, d) f = Shape(x) y = Reshape(n, f)"""


def model(text: str, opset: int = 18, ir_version: int = 10, functions: str = "") -> ir.Model:
    imports = f'"": {opset}' + (', "my": 1' if functions else "")
    head = f"<ir_version: {ir_version}, opset_import: [{imports}]> agraph"
    return ir.from_proto(onnx.parser.parse_model(f"{head} {text}\n{functions}"))


def sites(text: str, opset: int = 18, ir_version: int = 10, functions: str = "") -> tuple[GroupNormSite, ...]:
    return find(model(text, opset, ir_version, functions)).sites


def test_a_scale_that_makes_the_value_larger_is_not_its_scale() -> None:
    (site,) = sites(
        """(float[N,1,H,W] x) => (float[N,8,H,W] y)
        <int64[3] s = {0,1,-1}, float[1] one = {1}, float[1] zero = {0}, float[8,1,1] w = {1,2,3,4,5,6,7,8}>
        { v = Reshape(x, s) n = InstanceNormalization(v, one, zero) f = Shape(x) r = Reshape(n, f) y = Mul(r, w) }"""
    )
    assert (site.output.name, site.scale) == ("r", None)


@pytest.mark.parametrize(("ir_version", "found"), [(10, 0), (3, 1)])
def test_a_default_is_not_a_constant(ir_version: int, found: int) -> None:
    """An initializer that is also an input can be overridden, since IR version 4."""
    text = f"""(float[N,8,H,W] x, float[4] one) => (float[N,8,H,W] y) <{ONES}>
        {{ v = Reshape(x, s) n = InstanceNormalization(v, one, zero) f = Shape(x) y = Reshape(n, f) }}"""
    assert len(sites(text, 18, ir_version)) == found


def test_an_overridable_scale_is_known_at_run_time_only() -> None:
    (site,) = sites(
        """(float[N,8,H,W] x, float[8] w) => (float[N,8,H,W] y) <float[8] w = {1,1,1,1,1,1,1,1}>
        { y = GroupNormalization<num_groups = 4>(x, w, w) }""",
        21,
    )
    assert site.scale is not None
    assert site.scale.array is None


def test_a_mean_that_others_read_stays() -> None:
    lowered = model(
        f"""(float[N,8,H,W] x) => (float[N,8,H,W] y, float[N,4,1] m)
        <int64[3] s={{0,4,-1}}, float eps={{0.001}}> {{{TWO_PASS}}}""",
        17,
    )
    LowerGroupNorm("onnx+native")(lowered)
    assert [node.op_type for node in lowered.graph] == ["Reshape", "Constant", "ReduceMean", "GroupNormalization"]
    assert lowered.graph.opset_imports[""] == 21  # where the axes of ReduceMean are an input
    onnx.checker.check_model(ir.to_proto(lowered), full_check=True)


def test_a_third_operand_of_max_is_seen() -> None:
    text = """(float[N,8,H,W] x, float[1] o) => (float[N,8,H,W] y)
        <int64[3] s = {{0,4,-1}}, float eps = {{0.001}}, float zero = {{0}}>
        {{ v = Reshape(x, s) m = ReduceMean<axes = [2]>(v) c = Sub(v, m) w = Mul(v, v) p = ReduceMean<axes = [2]>(w)
          k = Mul(m, m) q = Sub(p, k) a = Max(q, zero{}) e = Add(a, eps) d = Sqrt(e) n = Div(c, d) f = Shape(x)
          y = Reshape(n, f) }}"""
    assert len(sites(text.format(""), 17)) == 1
    assert not sites(text.format(", o"), 17)


def test_two_norms_may_share_a_reshape() -> None:
    found = sites(
        f"""(float[N,8,H,W] x) => (float[N,8,H,W] y, float[N,8,H,W] z) <{ONES}>
        {{ v = Reshape(x, s) f = Shape(x) n = InstanceNormalization<epsilon = 0.001>(v, one, zero) y = Reshape(n, f)
          k = InstanceNormalization<epsilon = 0.01>(v, one, zero) z = Reshape(k, f) }}"""
    )
    assert [site.spec.epsilon for site in found] == [0.001, 0.01]


@pytest.mark.parametrize("to", [6, 7, 10])
def test_a_mean_that_a_cast_rounds_is_another_mean(to: int) -> None:
    rounded = TWO_PASS.replace("c = Sub(v, m)", f"i = Cast<to = {to}>(m) g = Cast<to = 1>(i) c = Sub(v, g)")
    text = "(float[N,8,H,W] x) => (float[N,8,H,W] y) <int64[3] s={0,4,-1}, float eps={0.001}>"
    assert not sites(f"{text} {{{rounded}}}", 17)


def test_random_values_are_not_the_same_value() -> None:
    assert not sites(
        """(float[2,8,4,4] x) => (float[2,8,4,4] y)
        <float eps = {0.001}, float[2,8,4,4] p, float[2,8,4,4] q, float[2,1,1,1] m, float[2,1,1,1] a>
        { p = RandomNormalLike(x) q = RandomNormalLike(x) m = ReduceMean<axes = [1,2,3]>(q) c = Sub(p, m) k = Mul(c, c)
          a = ReduceMean<axes = [1,2,3]>(k) e = Add(a, eps) d = Sqrt(e) y = Div(c, d) }""",
        17,
    )


@pytest.mark.parametrize(("dtype", "number", "source"), [("float", 1, "x"), ("bfloat16", 16, "c")])
def test_bfloat16_does_not_hold_float16(dtype: str, number: int, source: str) -> None:
    (site,) = sites(
        f"""(float16[N,8,H,W] x) => (float16[N,8,H,W] y)
        <int64[3] s = {{0,4,-1}}, {dtype}[4] one = {{1,1,1,1}}, {dtype}[4] zero = {{0,0,0,0}},
         float16[8,1,1] w = {{1,2,3,4,5,6,7,8}}>
        {{ c = Cast<to = {number}>(x) v = Reshape(c, s) n = InstanceNormalization(v, one, zero) f = Shape(x)
          r = Reshape(n, f) k = Cast<to = 10>(r) y = Mul(k, w) }}""",
        22,
    )
    assert site.input.name == source


def test_statistics_in_float64_are_told() -> None:
    (site,) = sites(
        """(float[N,8,H,W] x) => (float[N,8,H,W] y)
        <int64[3] s = {0,4,-1}, double[4] one = {1,1,1,1}, double[4] zero = {0,0,0,0},
         float[8,1,1] w = {1,2,3,4,5,6,7,8}>
        { h = Cast<to = 11>(x) v = Reshape(h, s) n = InstanceNormalization(v, one, zero) f = Shape(x) r = Reshape(n, f)
          k = Cast<to = 1>(r) y = Mul(k, w) }"""
    )
    assert (site.spec.dtype, site.spec.stash_dtype) == ("float32", "float64")


def test_a_native_norm_tells_the_channels_that_the_input_does_not() -> None:
    (site,) = sites(
        """(float[N,C,H,W] x) => (float[N,C,H,W] y) <float[8] w = {1,2,3,4,5,6,7,8}>
        { y = GroupNormalization<num_groups = 4>(x, w, w) }""",
        21,
    )
    assert site.spec.num_channels == 8


def test_a_negative_axis_is_the_axis_it_means() -> None:
    (site,) = sites(
        """(float[N,8,H,W] x) => (float[N,8,H,W] y) <float[8,1,1] w = {1,2,3,4,5,6,7,8}>
        { y = LayerNormalization<axis = -3>(x, w) }"""
    )
    assert (site.spec.num_groups, site.spec.num_channels) == (1, 8)


@pytest.mark.parametrize("op", ["Conv(u, k)", "MaxPool<kernel_shape = [2,2]>(a)", "Concat<axis = 1>(b, b)"])
def test_channels_are_known_where_shape_inference_gave_up(op: str) -> None:
    """onnx does not see through the Reshape of a norm below opset 14: every later shape is missing."""
    (site,) = sites(
        f"""(float[N,8,H,W] a, float[N,4,H,W] b, float[r] t, int64[q] z) => (float y) <{ONES}, float[8,3,1,1] k>
        {{ u = Reshape(t, z) x = {op} v = Reshape(x, s) n = InstanceNormalization(v, one, zero) f = Shape(x)
          y = Reshape(n, f) }}""".replace("float y", "float[i,j,k,l] y").replace(
            "float[8,3,1,1] k>", "float[8,3,1,1] k = {" + ",".join("1" * 24) + "}>"
        ),
        13,
    )
    assert site.spec.num_channels == 8


OWN = """<domain: "my", opset_import: ["": {0}]> norm{1} (i, w) => (o) {{
    k = Constant<value = int64[4] {{2,8,4,4}}>() c = Cast<to = 1>(i) r = Reshape(c, k)
    o = GroupNormalization<{2}num_groups = 4>(r, w, w) }}"""
CALL = "(float[2,8,4,4] x, float[4] w) => (float[2,8,4,4] y) { y = my.norm(x, w) }"


def test_a_function_is_read_and_written_at_its_own_opset() -> None:
    made = model(CALL, 21, functions=OWN.format(18, "", ""))
    (site,) = find(made).sites
    assert (site.form, site.opset) == ("native18", 18)
    (decision,) = LowerGroupNorm("onnx+native")(made).decisions  # type: ignore[attr-defined]
    assert decision.wrote is None
    (decision,) = LowerGroupNorm("onnx+primitives")(made).decisions  # type: ignore[attr-defined]
    assert decision.wrote == "primitives"
    (function,) = made.functions.values()
    assert function.opset_imports[""] == 18


def test_functions_are_raised_with_the_model() -> None:
    made = model(CALL, 18, functions=OWN.format(18, "", "").replace("float[4] w", "float[8] w"))
    (site,) = find(made).sites
    assert (site.form, site.opset) == ("native18", 18)
    LowerGroupNorm("onnx+native")(made)
    (function,) = made.functions.values()
    assert (made.opset_imports[""], function.opset_imports[""]) == (21, 21)
    onnx.checker.check_model(ir.to_proto(made), full_check=True)


def test_an_attribute_left_to_the_caller_is_not_guessed() -> None:
    call = CALL.replace("my.norm", "my.norm<e = 0.5>")
    assert not sites(call, 18, functions=OWN.format(18, " <e>", "epsilon : float = @e, "))
    assert len(sites(CALL, 18, functions=OWN.format(18, "", ""))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "(float[2,8,4] x) => (float[2,4,4] y)"
        " { p = Shape(x) q = Slice<starts = [0], ends = [1]>(p) v = Reshape(x, q) NORM }",
        "(float[2,8,4] x) => (float[2,4,4] y) { v = Transpose<perm = [0,7,1]>(x) NORM }",
        "(float[2,8,4] x) => (float[2,4,4] y) <int64[3] p = {0,-2,-1}> { v = Reshape(x, p) NORM }",
        "(float[2,8,4] x) => (float[2,4,4] y) <int64[2] p = {0,0}> { v = Unsqueeze(x, p) NORM }",
    ],
)
def test_nonsense_is_not_found_and_does_not_crash(text: str) -> None:
    norm = "n = InstanceNormalization(v, one, zero) f = Shape(x) y = Reshape(n, f)"
    extra = f"<{ONES}>" if "<int64" not in text else ""
    text = text.replace("NORM", norm).replace("y) {", f"y) {extra} {{")
    text = text.replace("<int64[", f"<{ONES}, int64[") if not extra else text
    assert not sites(text, 9 if "starts" in text else 13)


def test_a_huge_expanded_constant_is_not_made() -> None:
    made = model("(float[1] x) => (float[a,b] y) <float k = {1}, int64[2] s = {1000000, 1000000}> { y = Expand(k, s) }")
    assert Facts(18).constant(made.graph[0].outputs[0]) is None


@pytest.mark.parametrize(
    ("source", "constants"),
    [
        ('x = Pad<mode = "reflect">(a, p)', "int64[8] p = {0,0,1,1,0,0,0,2}"),
        ("h = Shape<start = 2>(a) p = Concat<axis = 0>(o, h, o, h) x = Pad(a, p)", "int64[2] o = {0,0}"),
        ("h = Shape<start = 2>(b) x = Slice(a, o, h, t)", "int64[2] o = {0,0}, int64[2] t = {2,3}"),
        ("k = Shape<start = 3>(b) x, i = TopK(a, k)", "int64[1] o = {0}"),
        ("q = Transpose<perm = [0,2,3,1]>(a) l = MatMul(q, w) x = Transpose<perm = [0,3,1,2]>(l)",
         "float[8,8] w = {0}"),
        ("c = Shape<start = 1, end = 2>(d) t = Add(c, o) h = Div(t, two) x = Slice(d, z, h, o)",
         "int64[1] o = {1}, int64[1] z = {0}, int64[1] two = {2}"),
    ],
)  # fmt: skip
def test_channels_are_known_behind_what_onnx_does_not_infer(source: str, constants: str) -> None:
    """Exporters compute pads, crops and chunks from Shape; what they do not touch is what it was."""
    found = sites(
        f"""(float[N,8,H,W] a, float[N,8,K,L] b, float[N,16,H,W] d) => (y) <{ONES}, {constants}>
        {{ {source} v = Reshape(x, s) n = InstanceNormalization(v, one, zero) f = Shape(x) y = Reshape(n, f) }}"""
    )
    assert [(s.spec.num_groups, s.spec.num_channels) for s in found] == [(4, 8)]


@pytest.mark.parametrize("pads", ["{0,1,0,0,0,3,0,0}", "{0,-4,0,0,0,0,0,0}"])
def test_padded_channels_are_counted(pads: str) -> None:
    found = sites(
        f"""(float[N,8,H,W] a) => (y) <{ONES}, int64[8] p = {pads}>
        {{ x = Pad(a, p) v = Reshape(x, s) n = InstanceNormalization(v, one, zero) f = Shape(x) y = Reshape(n, f) }}"""
    )
    assert [s.spec.num_channels for s in found] == [12 if "3" in pads else 4]


@pytest.mark.parametrize(("place", "found"), [("<float[2,8,4,4] w = {0},", 0), ("<", 1)])
def test_standardized_weights_are_no_norm_of_the_network(place: str, found: int) -> None:
    """Weight standardization (Qiao et al. 2019) has the arithmetic; what it normalizes is the same for every input."""
    inputs = "float[N,8,H,W] x" if "w =" in place else "float[N,8,H,W] x, float[2,8,4,4] w"
    seen = find(
        model(
            f"""({inputs}) => (y) {place} float[1] one = {{1}}, float[1] zero = {{0}}, int64[3] s = {{2,1,-1}},
            int64[4] k = {{2,8,4,4}}>
            {{ v = Reshape(w, s) n = InstanceNormalization(v, one, zero) t = Reshape(n, k) y = Conv(x, t) }}"""
        )
    )
    assert len(seen.sites) == found
    assert found or "weights are standardized" in seen.near_misses[0].reason


@pytest.mark.parametrize(
    ("axis", "indices", "found"),
    [
        (1, "int64[4] i = {0,1,2,3}", 1),
        (1, "int64[4] i = {-4,-3,-2,-1}", 1),
        (1, "int64[4] i = {1,0,3,2}", 0),  # the statistics of another group
        (1, "int64[4] i = {0,0,0,0}", 0),
        (0, "int64[4] i = {1,0,3,2}", 0),  # of another sample
        (2, "int64 i = {0}", 0),  # an axis less
    ],
)
def test_a_statistic_is_picked_for_its_own_group(axis: int, indices: str, found: int) -> None:
    picked = TWO_PASS.replace("n = Div(c, d)", f"g = Gather<axis = {axis}>(d, i) n = Div(c, g)")
    text = f"(float[4,8,H,W] x) => (float[4,8,H,W] y) <int64[3] s={{0,4,-1}}, float eps={{0.001}}, {indices}>"
    assert len(sites(f"{text} {{{picked}}}", 17)) == found


def test_sizes_copied_by_nodes_without_a_name_are_not_the_same_size() -> None:
    assert not sites(
        f"""(float[r] t, int64[q] z, float[k] t2, int64[p] z2) => (float[i,j,k,l] y) <{ONES}, int64[4] same={{0,8,0,0}}>
        {{ a = Reshape(t, z) x = Reshape(a, same) b = Reshape(t2, z2) w = Reshape(b, same) v = Reshape(x, s)
          n = InstanceNormalization(v, one, zero) f = Shape(w) y = Reshape(n, f) }}"""
    )


@pytest.mark.parametrize(
    "back",
    [
        "p = Unsqueeze(a, i1) q = Unsqueeze(b, i1) c = Concat<axis = 1>(p, q) g = Reshape(c, rest)",  # N, H, 8, W
        "h = Slice(b, i0, i1) o = Cast<to = 9>(h) l = Cast<to = 7>(o) g = Concat<axis = 0>(a, l, rest)",  # N, 8, 1, H*W
    ],
)
def test_sizes_that_change_places_or_become_truths_are_no_shape_of_the_input(back: str) -> None:
    assert not sites(
        f"""(float[N,8,H,W] x) => (float[i,j,k,l] y)
        <{ONES}, int64[1] i0={{0}}, int64[1] i1={{1}}, int64[1] i2={{2}}, int64[1] i4={{4}}, int64[1] rest={{-1}}>
        {{ v = Reshape(x, s) n = InstanceNormalization(v, one, zero) f = Shape(x) a = Slice(f, i0, i2)
          b = Slice(f, i2, i4) {back} y = Reshape(n, g) }}"""
    )


@pytest.mark.parametrize(("count", "found"), [("(k, none)", 1), ("<noop_with_empty_axes = 1>(k, none)", 0)])
def test_no_axes_are_all_axes_unless_they_are_said_to_be_none(count: str, found: int) -> None:
    mean = f"t = ReduceSum(q, last) p = ReduceProd{count} g = Cast<to = 1>(p) a = Div(t, g)"
    text = TWO_PASS.replace("a = ReduceMean<axes = [2]>(q)", mean).replace("<axes = [2]>(v)", "(v, last)")
    head = """(float[N,8,1,1] x) => (float[N,8,1,1] y) <int64[3] s = {0,4,-1}, float eps = {0.001}, int64[1] last = {2},
        int64[2] k = {1,2}, int64[0] none = {}>"""
    assert len(sites(f"{head} {{{text}}}")) == found
