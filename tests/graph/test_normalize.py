"""Normalizing: the numbers stay, the spelling becomes plain, what the file said is kept, and twice is once."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from gn_deploy.errors import InputError
from gn_deploy.graph.io import as_model
from gn_deploy.graph.normalize import normalize
from tests.graph.io_models import RELU, parse, weighted

FUNCTIONS = """
<ir_version: 10, opset_import: ["" : 18, "own" : 1]>
main (float[N, 4] x) => (float[N, 4] y) { a = own.affine <k = 3.0> (x) y = own.affine (a) }
<domain: "own", opset_import: ["" : 18]>
scale <f> (v) => (r) { t = Constant <value_float: float = @f> () r = Mul (v, t) }
<domain: "own", opset_import: ["" : 18, "own" : 1]>
affine <k: float = 2.0> (v) => (r) {
    t = own.scale <f: float = @k> (v)
    u = Constant <value_float = 1.0> ()
    r = Add (t, u)
}
"""
CONSTANTS = """
<ir_version: 10, opset_import: ["" : 21]>
main (float[2] x) => (float[2] y, string[2] s, int64[2] o) {
    a = Constant <value = float[2] {1, 2}> ()
    b = Constant <value_float = 3.0> ()
    c = Constant <value_floats = [4.0, 5.0]> ()
    i = Constant <value_int = 1> ()
    j = Constant <value_ints = [0, 0]> ()
    t = Constant <value_string = "t"> ()
    u = Constant <value_strings = ["u", "v"]> ()
    s = StringConcat (t, u)
    o = Add (i, j)
    p = Add (a, x)
    q = Mul (p, b)
    y = Add (q, c)
}
"""
BRANCHES = """
<ir_version: 10, opset_import: ["" : 18]>
main (float[2] x) => (float[2] y, float[2] z) {
    yes = Constant <value = bool {1}> ()
    no = Constant <value = bool[1] {0}> ()
    t = Neg (x)
    y = If (yes) <
        then_branch = one () => (float[2] p) {
            m = If (no) <
                then_branch = three () => (float[2] r) { r = Identity (x) },
                else_branch = four () => (float[2] t) <float[2] w = {1, 2}> { t = Mul (x, w) }
            >
            p = Add (m, t)
        },
        else_branch = two () => (float[2] q) { q = Identity (x) }
    >
    z = If (no) <
        then_branch = five () => (float[2] q2) { q2 = Identity (x) },
        else_branch = six () => (float[2] w) <float[2] w = {7, 8}> { }
    >
}
"""


def run(model: ir.Model, **feeds: object) -> list[NDArray[np.generic]]:
    onnx.checker.check_model(proto := ir.to_proto(model))
    results: list[NDArray[np.generic]] = ReferenceEvaluator(proto).run(None, feeds)
    return results


def normalized(text: str) -> ir.Model:
    """The normalized model, after checking that a second time changes no byte."""
    model = normalize(as_model(parse(text)))
    once = ir.to_proto(model).SerializeToString(deterministic=True)
    assert ir.to_proto(normalize(model)).SerializeToString(deterministic=True) == once
    return model


X = np.array([0.5, -2], np.float32)


@pytest.mark.parametrize(
    ("text", "x", "nodes", "expected"),
    [
        (FUNCTIONS, X.repeat(2)[None], 4, [6 * X.repeat(2)[None] + 3]),  # (3 x + 1) 2 + 1
        (CONSTANTS, X, 5, [np.add(X, [1, 2]) * 3 + [4, 5], ["tu", "tv"], [1, 1]]),
        (BRANCHES, X, 4, [X * [1, 2] - X, [7, 8]]),
    ],
)
def test_the_numbers_stay(text: str, x: NDArray[np.float32], nodes: int, expected: list[object]) -> None:
    model = normalized(text)
    assert len(model.graph) == nodes
    assert not {"Constant", "If", "affine", "scale"} & {node.op_type for node in model.graph}
    for result, right in zip(run(model, x=x), expected, strict=True):
        assert np.array_equal(result, np.asarray(right))


def test_functions_that_are_asked_for_stay() -> None:
    model = normalize(as_model(parse(FUNCTIONS)), keep_functions={("own", "scale")})
    assert [node.op_type for node in model.graph] == ["scale", "Add", "scale", "Add"]
    assert [function.name for function in model.functions.values()] == ["scale"]
    assert run(model, x=np.ones((1, 4), np.float32))[0].tolist() == [[9] * 4]


def test_functions_that_cannot_be_inlined_stay() -> None:
    model = normalized(FUNCTIONS.replace('opset_import: ["" : 18]>', 'opset_import: ["" : 17]>'))
    assert [function.name for function in model.functions.values()] == ["scale"]
    through = parse(
        '<ir_version: 10, opset_import: ["" : 18, "own" : 1]> main (float[2] x) => (float[2] y) { y = own.f (x) } '
        '<domain: "own", opset_import: ["" : 18]> f (v) => (v) { w = Neg (v) }'
    )
    model = normalize(as_model(through))
    assert model.graph.inputs[0].name == "x"


def test_functions_that_call_each_other_in_a_circle() -> None:
    circle = FUNCTIONS.replace("r = Mul (v, t)", "r = own.affine (t)")
    with pytest.raises(InputError, match=r"cannot be inlined: Cyclic dependency"):
        normalize(as_model(parse(circle)))


def test_names_types_and_notes_are_kept() -> None:
    proto = parse(FUNCTIONS)
    proto.graph.doc_string = "about the graph"
    helper.set_model_props(proto, {"k": "v"})
    for number, node in enumerate(proto.graph.node):
        node.name = f"call{number}"
        node.metadata_props.add(key="where", value=f"line {number}")
    model = normalize(as_model(proto))
    values = {value.name for node in model.graph for value in node.outputs}
    assert {"a", "y"} <= values
    assert model.metadata_props == {"k": "v"}
    assert model.graph.doc_string == "about the graph"
    assert [node.metadata_props["where"] for node in model.graph] == ["line 0", "line 0", "line 1", "line 1"]
    assert str(model.graph.outputs[0].shape) == "[N,4]"


def test_a_constant_keeps_its_notes() -> None:
    proto = parse(CONSTANTS)
    proto.graph.node[0].metadata_props.add(key="where", value="line 3")
    value = normalize(as_model(proto)).graph.initializers["a"]
    assert value.metadata_props == {"where": "line 3"}
    assert (value.dtype, value.const_value is not None) == (ir.DataType.FLOAT, True)


def test_a_constant_that_is_an_output_stays() -> None:
    text = '<ir_version: 10, opset_import: ["" : 18]> g () => (float y) { y = Constant <value_float = 1.0> () }'
    assert [node.op_type for node in normalized(text).graph] == ["Constant"]


def test_a_branch_that_depends_on_the_data_stays() -> None:
    text = BRANCHES.replace("(float[2] x) => (float[2] y", "(float[2] x, bool yes) => (float[2] y")
    text = text.replace("    yes = Constant <value = bool {1}> ()\n", "")
    assert "If" in {node.op_type for node in normalized(text).graph}
    proto = parse(text)  # an initializer that is also an input is a default value, not a constant
    proto.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    assert "If" in {node.op_type for node in normalize(as_model(proto)).graph}


def test_branch_names_do_not_collide() -> None:
    model = normalized(BRANCHES)
    names = [value.name for node in model.graph for value in node.outputs]
    names += [*model.graph.initializers, *(value.name for value in model.graph.inputs)]
    assert len(set(names)) == len(names)
    assert [value.name for value in model.graph.outputs] == ["y", "z"]
    assert "m" in names


def test_an_ir_model_out_of_order_is_sorted() -> None:
    model = as_model(parse(RELU))
    first = model.graph.node(0)
    model.graph.remove(first)
    model.graph.append(first)
    assert [node.op_type for node in normalize(model).graph] == ["Relu", "Neg"]
    first.replace_input_with(0, model.graph.node(1).outputs[0])
    model.graph.node(1).replace_input_with(0, first.outputs[0])
    with pytest.raises(InputError, match="has a cycle"):
        normalize(model)


SHAPES = (
    '<ir_version: 8, opset_import: ["" : 18]> g (float[N, 4, 6] x) => (float[N, 2, 12] y) '
    "<int64[3] s = {0, 2, 12}> { t = Reshape (x, s) u = Relu (t) y = Neg (u) }"
)


def shape(model: ir.Model, name: str) -> str:
    return next(str(v.shape) for node in model.graph for v in node.outputs if v.name == name)


def test_missing_shapes_are_inferred() -> None:
    model = normalized(SHAPES)
    assert shape(model, "t") == shape(model, "u") == "[N,2,12]"
    assert {v.dtype for node in model.graph for v in node.outputs} == {ir.DataType.FLOAT}


def test_shapes_in_the_file_are_kept() -> None:
    proto = parse(SHAPES)
    proto.graph.value_info.append(helper.make_tensor_value_info("u", TensorProto.FLOAT, ["batch", 2, 12]))
    model = normalize(as_model(proto))
    assert (shape(model, "t"), shape(model, "u")) == ("[N,2,12]", "[batch,2,12]")


def test_shapes_inside_branches_are_inferred() -> None:
    text = (
        '<ir_version: 8, opset_import: ["" : 18]> g (float[3] x, bool c) => (float[3] y) '
        "{ y = If (c) <then_branch = a () => (float[3] p) { n = Neg (x) p = Relu (n) }, "
        "else_branch = b () => (float[3] q) { q = Relu (x) }> }"
    )
    node = normalized(text).graph.node(0)
    assert str(node.attributes["then_branch"].as_graph().node(0).outputs[0].shape) == "[3]"


def test_inference_that_fails_is_no_error() -> None:
    text = SHAPES.replace("{0, 2, 12}", "{0, 7, 5}").replace("float[N, 2, 12] y", "float y")
    assert shape(normalize(as_model(parse(text))), "u") in ("None", "[N,7,5]")


def test_large_external_weights_are_not_read(tmp_path: Path) -> None:
    onnx.save(weighted(1, 5000), tmp_path / "m.onnx", save_as_external_data=True, location="w", size_threshold=0)
    from gn_deploy.graph.io import load

    model = normalize(load(tmp_path / "m.onnx"))
    large = model.graph.initializers["w1"].const_value
    assert isinstance(large, ir.ExternalTensor)
    assert large.raw is None
    assert shape(model, "s0") != "None"


@pytest.mark.parametrize("size", [1 << 10, 1 << 20])
def test_long_vectors_are_not_taken_for_shapes(size: int) -> None:
    """onnx's data propagation needs 50 bytes and 0.1 us per element of any vector; it is off for long ones."""
    model = normalize(as_model(weighted(size, size, size)))
    assert shape(model, "s1") == f"[{size}]"


def test_shapes_are_known_behind_an_operator_that_onnx_does_not_infer() -> None:
    text = """<ir_version: 10, opset_import: ["": 21]>
    agraph (float[N,8,H,W] x) => (float[N,8,P,Q] y) <float[8] w = {1,1,1,1,1,1,1,1}>
    { a = GroupNormalization<num_groups = 2>(x, w, w)
      b = MaxPool<kernel_shape = [2, 2]>(a)
      c = GroupNormalization<num_groups = 2>(b, w, w)
      y = MaxPool<kernel_shape = [2, 2]>(c) }"""
    model = normalize(ir.from_proto(onnx.parser.parse_model(text)))
    shapes = {node.outputs[0].name: node.outputs[0].shape for node in model.graph}
    assert all(shapes[name] is not None and shapes[name][1] == 8 for name in "abcy"), shapes
    assert [node.op_type for node in model.graph] == ["GroupNormalization", "MaxPool"] * 2
