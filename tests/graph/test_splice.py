"""A splice keeps what others read: names, types, metadata, shared intermediates, graph outputs."""

import numpy as np
import onnx
import onnx_ir as ir

from gn_deploy.graph.splice import Builder, Names, dying_with, splice


def graph(text: str) -> ir.Model:
    header = '<ir_version: 10, opset_import: ["": 21]> agraph '
    return ir.from_proto(onnx.parser.parse_model(header + text))


def replace_last(model: ir.Model) -> ir.Model:
    """The producer of the first output, and its producers, by one Relu of the graph input."""
    output = model.graph.outputs[0]
    builder = Builder(Names(model), "new", 21)
    value = builder.op("Relu", [model.graph.inputs[0]])
    splice(tuple(model.graph), output, value, builder, in_function=False)
    return model


def test_the_value_keeps_its_name_type_and_metadata() -> None:
    model = graph("(float[N,4] x) => (float[N,4] y) { a = Sigmoid(x) y = Neg(a) }")
    model.graph.outputs[0].metadata_props["who"] = "me"
    replace_last(model)
    (y,) = model.graph.outputs
    assert (y.name, y.dtype, str(y.shape), y.metadata_props) == ("y", ir.DataType.FLOAT, "[N,4]", {"who": "me"})
    assert [n.op_type for n in model.graph] == ["Relu"]
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


def test_an_intermediate_that_is_an_output_stays() -> None:
    model = replace_last(graph("(float[4] x) => (float[4] y, float[4] a) { a = Sigmoid(x) y = Neg(a) }"))
    assert sorted(n.op_type for n in model.graph) == ["Relu", "Sigmoid"]
    assert [v.name for v in model.graph.outputs] == ["y", "a"]


def test_an_intermediate_with_another_reader_stays() -> None:
    model = graph("(float[4] x) => (float[4] y, float[4] z) { a = Sigmoid(x) y = Neg(a) z = Exp(a) }")
    output = model.graph.outputs[0]
    builder = Builder(Names(model), "new", 21)
    value = builder.op("Relu", [model.graph.inputs[0]])
    splice([model.graph[0], model.graph[1]], output, value, builder, in_function=False)
    assert [n.op_type for n in model.graph] == ["Sigmoid", "Relu", "Exp"]


def test_weights_and_shape_arithmetic_die_with_their_reader() -> None:
    model = graph(
        "(float[4] x) => (float[4] y) <float[4] w = {1,2,3,4}> { s = Shape(x) r = Reshape(x, s) y = Mul(r, w) }"
    )
    last = model.graph[-1]
    assert {n.op_type for n in dying_with([last])} == {"Shape", "Reshape", "Mul"}
    replace_last(model)
    assert [n.op_type for n in model.graph] == ["Relu"]
    assert not model.graph.initializers


def test_new_names_are_new() -> None:
    model = graph("(float[4] x) => (float[4] y) <float[1] new/one = {1}> { y = Add(x, new/one) }".replace("/", "_"))
    names = Names(model)
    assert names.fresh("new_one") == "new_one_2"
    assert names.fresh("new_one") == "new_one_3"
    builder = Builder(names, "new", 21)
    value = builder.constant(np.ones(3, np.float32), "one")
    assert value.name == "new/one"
