"""The lowering pass: what it writes, what it leaves, what it says, and what it never touches."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import gn_deploy as gn
from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.forms.base import GroupNormSite
from gn_deploy.graph.normalize import normalize
from gn_deploy.passes.lower import Lowered, LowerGroupNorm
from gn_deploy.passes.opset import may_change
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.sites import find
from gn_deploy.spec import GroupNormSpec
from tests.forms.writing import affine, write

SPEC = GroupNormSpec(4, 8, rank=4)


def one(form: str = "instance_norm", opset: int = 18, spec: GroupNormSpec = SPEC) -> ir.Model:
    shape: list[int | str] = ["N", spec.num_channels, *["H", "W"][: (spec.rank or 2) - 2]]
    return write(form, spec, *affine(spec, "both"), shape, opset)


def lower(model: ir.Model, target: str, verify: Callable[..., Decision] | None = None) -> Lowered:
    result = LowerGroupNorm(target, verify=verify)(model)
    assert isinstance(result, Lowered)
    return result


def parsed(text: str, opset: int = 18) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> agraph {text}'))


def with_tail(model: ir.Model, op: str, **attributes: object) -> ir.Model:
    """One more node between the norm and the graph output."""
    y = model.graph.outputs[0]
    node = ir.node(op, [y], attributes=attributes)  # type: ignore[arg-type]
    node.outputs[0].name = "z"
    node.outputs[0].dtype, node.outputs[0].shape = y.dtype, y.shape
    model.graph.append(node)
    model.graph.outputs[0] = node.outputs[0]
    return model


def test_opset_is_raised_when_every_other_node_keeps_its_meaning() -> None:
    model = with_tail(one(), "Relu")
    (decision,) = lower(model, "onnx+native").decisions
    assert decision.wrote == "native"
    assert "opset raised from 18 to 21" in decision.decision.reason
    assert model.graph.opset_imports[""] == 21
    assert [n.op_type for n in model.graph] == ["GroupNormalization", "Relu"]
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_opset_stays_when_a_node_would_change_and_the_next_form_is_taken() -> None:
    model = with_tail(one("primitives", 17), "AveragePool", kernel_shape=[2, 2], ceil_mode=1)
    (decision,) = lower(model, "tensorrt").decisions
    assert decision.wrote == "instance_norm"
    assert "AveragePool changed between versions 11 and 19" in decision.decision.reason
    assert model.graph.opset_imports[""] == 17


def test_the_only_form_asked_for_is_refused_with_the_reason() -> None:
    model = with_tail(one("primitives", 17), "AveragePool", kernel_shape=[2, 2], ceil_mode=1)
    before = ir.to_proto(model).SerializeToString()
    result = lower(model, "onnx+native")
    assert not result.modified
    assert isinstance(result.decisions[0].decision, Rejected)
    assert result.decisions[0].wrote is None
    assert ir.to_proto(model).SerializeToString() == before


@pytest.mark.parametrize(
    ("op", "attributes", "safe"),
    [("Softmax", {"axis": 1}, True), ("GridSample", {}, True), ("GroupNormalization", {"num_groups": 2}, False)],
)
def test_meaning_is_judged_by_the_schema(op: str, attributes: dict[str, int], safe: bool) -> None:
    assert bool(may_change(with_tail(one(), op, **attributes), 21, frozenset())) is safe


def test_what_leads_to_a_norm_stays_and_may_keep_the_opset() -> None:
    """The norm is its only reader, and reads it still after it is written anew."""
    text = """(float[N,8,H,W] a) => (float[N,8,K,L] y)
        <int64[3] s = {0,4,-1}, float[4] one = {1,1,1,1}, float[4] zero = {0,0,0,0}> {
            x = AveragePool<kernel_shape = [3, 3], ceil_mode = 1>(a) v = Reshape(x, s)
            n = InstanceNormalization(v, one, zero) f = Shape(x) y = Reshape(n, f) }"""
    lowered = normalize(parsed(text, 17))
    (decision,) = LowerGroupNorm("onnx+native")(lowered).decisions
    assert decision.wrote is None
    assert "AveragePool" in decision.decision.reason
    assert lowered.opset_imports[""] == 17


def test_old_opsets_are_not_raised() -> None:
    assert "too old" in may_change(parsed("(float[4] x) => (float[4] y) { y = Relu(x) }", 11), 21, frozenset()).reason


def test_a_reshape_of_opset_13_keeps_its_meaning() -> None:
    text = "(float[2,4] x) => (float[8] y) <int64[1] s = {8}> { y = Reshape(x, s) }"
    assert may_change(parsed(text, 13), 21, frozenset())


def test_pooling_is_safe_only_without_ceil_mode() -> None:
    for ceil, safe in ((0, True), (1, False)):
        model = with_tail(one(), "AveragePool", kernel_shape=[2, 2], ceil_mode=ceil)
        assert bool(may_change(model, 21, frozenset())) is safe


def test_tensorrt_gets_layer_norm_for_one_group() -> None:
    model = one(spec=GroupNormSpec(1, 8, rank=4))
    (decision,) = lower(model, "tensorrt").decisions
    assert decision.wrote == "layer_norm"
    (node,) = model.graph
    assert (node.op_type, node.attributes["axis"].as_int()) == ("LayerNormalization", 1)
    assert [list(v.shape) for v in node.inputs[1:] if v is not None and v.shape is not None] == [[8, 1, 1]] * 2


def test_tensorrt_gets_rank_2_as_rank_3() -> None:
    for form, opset in (("instance_norm", 18), ("native", 21)):
        model = one(form, opset, GroupNormSpec(4, 8, rank=2))
        lower(model, "tensorrt")
        assert [n.op_type for n in model.graph] == ["Unsqueeze", "GroupNormalization", "Squeeze"]
        assert not lower(model, "tensorrt").modified


def test_tensorrt_before_10_9_gets_instance_norm() -> None:
    model = one("native", 21)
    (decision,) = lower(model, "tensorrt@10.8").decisions
    assert decision.wrote == "instance_norm"
    assert "10.8 does not import" in decision.decision.reason


def test_what_is_already_right_is_left() -> None:
    model = one("instance_norm")
    before = ir.to_proto(model).SerializeToString()
    result = lower(model, "ort-cpu")
    assert not result.modified
    assert "already written as instance_norm" in result.decisions[0].decision.reason
    assert ir.to_proto(model).SerializeToString() == before


def test_one_pass_is_rewritten_even_into_the_same_form() -> None:
    model = parsed(
        """(float[N,8,H,W] x) => (float[N,8,H,W] y)
        <int64[3] s = {0, 4, -1}, int64[1] last = {2}, float eps = {0.00001}>
        { v = Reshape(x, s)
          m = ReduceMean(v, last)
          q = Mul(v, v)
          mq = ReduceMean(q, last)
          mm = Mul(m, m)
          var = Sub(mq, mm)
          c = Sub(v, m)
          e = Add(var, eps)
          d = Sqrt(e)
          n = Div(c, d)
          full = Shape(x)
          y = Reshape(n, full) }"""
    )
    assert "one pass" in find(model).sites[0].notes[0]
    (decision,) = lower(model, "onnx+primitives").decisions
    assert decision.wrote == "primitives"
    assert not find(model).sites[0].notes
    x = np.random.default_rng(0).normal(1e4, 1e-2, (1, 8, 4, 4)).astype(np.float32)
    y = RUNTIMES.require("onnx-reference").open(model).run({"x": x})["y"]
    # float32 rounds x of 1e4 +- 1e-2 to steps of 1e-3; what is left has unit variance, one-pass has nothing of it
    assert 0.9 < float(y.std()) < 1.1


def test_a_rewrite_that_is_not_proved_is_not_made() -> None:
    model = one()
    before = ir.to_proto(model).SerializeToString()
    seen: list[tuple[list[str], list[str]]] = []

    def refuse(site: GroupNormSite, old: ir.Model, new: ir.Model) -> Decision:
        seen.append(([n.op_type for n in old.graph], [n.op_type for n in new.graph]))
        return Rejected("I do not trust it")

    (decision,) = lower(model, "onnx+native", refuse).decisions
    assert "I do not trust it" in decision.decision.reason
    assert seen[0][1] == ["GroupNormalization"]
    assert "InstanceNormalization" in seen[0][0]
    assert ir.to_proto(model).SerializeToString() == before


def test_opset_stays_when_a_per_group_op_could_not_be_rewritten() -> None:
    """Two sites of opset 18: if one rewrite fails, raising the opset would change the other one's meaning."""
    model = parsed(
        """(float[2,8,4,4] x) => (float[2,8,4,4] y) <float[4] w = {1,2,3,4}, float[4] b = {4,3,2,1}>
        { a = GroupNormalization<num_groups = 4>(x, w, b)
          y = GroupNormalization<num_groups = 4>(a, w, b) }"""
    )

    def only_the_first(site: GroupNormSite, old: ir.Model, new: ir.Model) -> Decision:
        return Accepted() if site.output.name == "a" else Rejected("no")

    result = lower(model, "onnx+native", only_the_first)
    assert model.graph.opset_imports[""] == 18
    assert [d.wrote for d in result.decisions] == [None, None]


def test_sites_in_branches_and_functions_are_found_and_written() -> None:
    model = parsed(
        """(float[2,8,4,4] x, bool c) => (float[2,8,4,4] y)
        <float[8] w = {1,2,3,4,5,6,7,8}, float[8] b = {0,0,0,0,1,1,1,1}>
        { y = If (c) <
            then_branch = g1 () => (float[2,8,4,4] t) { t = GroupNormalization<num_groups = 4>(x, w, b) },
            else_branch = g2 () => (float[2,8,4,4] e) { e = Identity(x) }
          > }""",
        21,
    )
    (decision,) = lower(model, "onnx+instance_norm", None).decisions
    assert decision.wrote == "instance_norm"
    branch = model.graph[0].attributes["then_branch"].as_graph()
    assert "InstanceNormalization" in [n.op_type for n in branch]
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_names_metadata_and_provenance() -> None:
    model = one("instance_norm")
    core = next(n for n in model.graph if n.op_type == "InstanceNormalization")
    core.name = "/down.1/norm2/InstanceNormalization"
    model.metadata_props["mine"] = "kept"
    model.doc_string = "kept too"
    lower(model, "onnx+native")
    (node,) = model.graph
    assert model.metadata_props["mine"] == "kept"
    assert model.doc_string == "kept too"
    assert model.metadata_props["gn_deploy.target"] == "onnx+native"
    assert node.metadata_props["gn_deploy.form"] == "native"
    assert node.metadata_props["gn_deploy.was"].startswith("instance_norm: Reshape, InstanceNormalization")
    assert (model.graph.inputs[0].name, model.graph.outputs[0].name) == ("x", "y")
    assert gn.find(model)[0].module == "down.1.norm2"


def test_a_weight_in_the_right_shape_is_shared() -> None:
    model = one("native", 21)
    weight = model.graph[0].inputs[1]
    lower(model, "onnx+instance_norm")
    lower(model, "onnx+native")
    assert weight is not None
    assert weight.const_value is not None
    scale = model.graph[0].inputs[1]
    assert scale is not None
    assert scale.const_value is not None
    np.testing.assert_array_equal(scale.const_value.numpy(), weight.const_value.numpy())


def test_a_site_of_unknown_rank_is_found_and_left_where_the_rank_is_needed() -> None:
    model = parsed(
        """(float[N,8,H,W] x, int64[r] s) => (float[a,b,c] y) <float[8] w = {1,2,3,4,5,6,7,8}>
        { v = Reshape(x, s)
          y = GroupNormalization<num_groups = 4>(v, w, w) }""",
        21,
    )
    (site,) = find(model).sites
    assert (site.spec.num_channels, site.spec.rank) == (8, None)
    assert "rank of the input is not known" in lower(model, "onnx+instance_norm").decisions[0].decision.reason


@pytest.mark.parametrize("form", ["native", "instance_norm", "layer_norm", "primitives"])
def test_a_site_may_read_another_directly(form: str, tmp_path: Path) -> None:
    model = parsed(
        """(float[N,8,H,W] x) => (float[N,8,H,W] y) <float[8] w = {1,2,3,4,5,6,7,8}, float[8] b = {8,7,6,5,4,3,2,1}>
        { a = GroupNormalization<num_groups = 4>(x, w, b)
          c = GroupNormalization<num_groups = 2>(a, w, b)
          y = GroupNormalization<num_groups = 1>(c, b, w) }""",
        21,
    )
    x = np.random.default_rng(0).normal(size=(2, 8, 3, 5))
    reference = RUNTIMES.require("onnx-reference")
    expected = reference.open(model, precision="float64").run({"x": x})["y"]
    result = gn.lower(model, f"onnx+{form}", out=tmp_path / "m.onnx")
    assert len(result.decisions) == 3
    actual = reference.open(tmp_path / "m.onnx", precision="float64").run({"x": x})["y"]
    np.testing.assert_allclose(actual, expected, atol=1e-6)  # epsilon is a float32 attribute in one and not the other


def test_the_modules_own_weight_is_used_where_it_was_unsqueezed() -> None:
    model = parsed(
        """(float[N,8,H,W] x) => (float[N,8,H,W] y)
        <int64[3] s = {0, 4, -1}, float[4] one = {1,1,1,1}, float[4] zero = {0,0,0,0}, int64[2] axes = {1,2},
         float[8] weight = {1,2,3,4,5,6,7,8}>
        { v = Reshape(x, s)
          n = InstanceNormalization(v, one, zero)
          full = Shape(x)
          r = Reshape(n, full)
          w = Unsqueeze(weight, axes)
          y = Mul(r, w) }"""
    )
    weight = model.graph.initializers["weight"]
    lower(model, "onnx+native")
    assert model.graph[0].inputs[1] is weight


def test_it_is_an_onnx_ir_pass_like_any_other() -> None:
    passes = ir.passes.Sequential(LowerGroupNorm("onnx+native"), LowerGroupNorm("onnx+instance_norm"))
    result = passes(one("native", 21))
    assert result.modified
    assert "InstanceNormalization" in [n.op_type for n in result.model.graph]
