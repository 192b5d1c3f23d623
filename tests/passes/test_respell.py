"""Nodes that a newer opset spells differently compute the same after the opset is raised."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from gn_deploy.passes.opset import change_opset, may_change

REDUCTIONS = "Max Min Mean Prod L1 L2 LogSum LogSumExp SumSquare".split()


def parsed(text: str, opset: int = 17, functions: str = "") -> ir.Model:
    imports = f'"": {opset}' + (', "my": 1' if functions else "")
    head = f"<ir_version: 8, opset_import: [{imports}]> agraph"
    proto = onnx.parser.parse_model(f"{head} {text}\n{functions}")
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))  # the outputs' types


def raised(model: ir.Model, opset: int = 21) -> onnx.ModelProto:
    assert may_change(model, opset, frozenset())
    change_opset(model, opset)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def computes_the_same(text: str, functions: str = "") -> onnx.ModelProto:
    before, after = ir.to_proto(parsed(text, functions=functions)), raised(parsed(text, functions=functions))
    rng = np.random.default_rng(0)
    feeds = {
        value.name: rng.uniform(-1.2, 1.2, [d.dim_value for d in value.type.tensor_type.shape.dim]).astype(np.float32)
        for value in before.graph.input
    }
    sessions = [onnxruntime.InferenceSession(proto.SerializeToString()) for proto in (before, after)]
    for x, y in zip(*(session.run(None, feeds) for session in sessions), strict=True):
        np.testing.assert_array_equal(x, y)
    return after


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("attributes", ["", "<axes = [1,-1]>", "<axes = [0], keepdims = 0>"])
def test_axes_of_a_reduction(reduction: str, attributes: str) -> None:
    computes_the_same(f"(float[2,3,4] x) => (y) {{ a = Abs(x) y = Reduce{reduction}{attributes}(a) }}")


def test_parts_of_a_split() -> None:
    computes_the_same("(float[2,6,4] x) => (a, b, c) { a, b, c = Split<axis = 1>(x) }")
    computes_the_same("(float[2,6,4] x) => (a, b) <int64[2] s = {4,2}> { a, b = Split<axis = 1>(x, s) }")


@pytest.mark.parametrize("mode", ["", '<mode = "bilinear">', '<mode = "bicubic">', '<mode = "nearest">'])
def test_modes_of_a_grid(mode: str) -> None:
    proto = computes_the_same(f"(float[2,3,6,6] x, float[2,5,7,2] g) => (y) {{ y = GridSample{mode}(x, g) }}")
    assert not {"bilinear", "bicubic"} & {a.s.decode() for a in proto.graph.node[0].attribute}


def test_branches_and_functions() -> None:
    branch = "g () => (float[2,3,1] r) { r = ReduceMax<axes = [2]>(x) }"
    text = f"""(float[2,3,4] x) => (y) {{
        m = ReduceMean<axes = [0,1,2], keepdims = 0>(x) z = Sub(m, m) c = Equal(m, z)
        t = If(c) <then_branch = {branch}, else_branch = {branch.replace("Max", "Min")}> y = my.f(t) }}"""
    computes_the_same(text, '<domain: "my", opset_import: ["" : 17]> f (x) => (y) { y = ReduceL2<axes = [1]>(x) }')


def test_names_already_taken_are_left_alone() -> None:
    computes_the_same("(float[2,3] x) => (y, y_axes) { y_axes = Neg(x) y = ReduceMean<axes = [1]>(x) }")


def test_only_what_the_raise_passes_is_respelled() -> None:
    model = parsed('(float[2,3,6,6] x, float[2,5,7,2] g) => (y) { y = GridSample<mode = "bilinear">(x, g) }')
    assert raised(model, 19).graph.node[0].attribute[0].s == b"bilinear"
