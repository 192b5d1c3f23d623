"""A QuantizeLinear that reads the plugin's node becomes one node with it, and two again where the model is read."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import gn_deploy as gn
from gn_deploy.passes.lower import LowerGroupNorm
from gn_deploy.passes.quantize import quantized
from gn_deploy.plugin.node import DOMAIN
from gn_deploy.runtimes import RUNTIMES

CODES = {"int8": onnx.TensorProto.INT8, "float8e4m3fn": onnx.TensorProto.FLOAT8E4M3FN}
CODES16 = {"float16": onnx.TensorProto.FLOAT16, "bfloat16": onnx.TensorProto.BFLOAT16}


def model(
    *, dtype: str = "float32", to: str = "int8", scale: object = 0.03, zero: object = 0, skip: bool = False,
    cast: bool = False, opset: int = 21, shown: bool = False, **attributes: object,
) -> ir.Model:  # fmt: skip
    """GroupNorm, SiLU, QuantizeLinear; with ``skip`` of a sum that is an output too."""
    wide = "float" if cast or dtype == "float32" else dtype
    named = "float" if dtype == "float32" else dtype
    text = f"""<ir_version: 10, opset_import: ["": {opset}]>
     g ({named}[2,8,4,4] x, {named}[2,8,4,4] r) => ({to}[2,8,4,4] q{f", {named}[2,8,4,4] e" if skip else ""}
      {f", {named}[2,8,4,4] a" if shown else ""}) {{
      {"e = Add(x, r)" if skip else "e = Identity(x)"}
      n = GroupNormalization<num_groups = 2>(e, w, b)
      s = Sigmoid(n)
      a = Mul(n, s)
      {"c = Cast<to = 1>(a)" if cast else ""}
      q = QuantizeLinear({"c" if cast else "a"}, k, z) }}"""
    made = onnx.parser.parse_model(text)
    np_dtype = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.FLOAT if wide == "float" else CODES16[wide])
    own = onnx.helper.tensor_dtype_to_np_dtype(onnx.TensorProto.FLOAT if named == "float" else CODES16[named])
    kind = onnx.helper.tensor_dtype_to_np_dtype(CODES.get(to, onnx.TensorProto.UINT8))
    length = 8 if opset > 20 else 2  # one for each channel, before 21 for each group
    held = {
        "w": np.linspace(0.5, 1.5, length).astype(own),
        "b": np.linspace(-1, 1, length).astype(own),
        "k": np.asarray(scale).astype(np_dtype),
        "z": np.asarray(zero).astype(kind),
    }
    for name, array in held.items():
        made.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for name, value in attributes.items():
        made.graph.node[-1].attribute.append(onnx.helper.make_attribute(name, value))
    if opset > 20:  # before it the operator is deprecated, which the checker refuses
        onnx.checker.check_model(made, full_check=True)
    return ir.from_proto(made)


def operators(found: ir.Model) -> list[str]:
    return [node.op_type for node in found.graph]


def numbers(found: ir.Model, runtime: str = "onnx-reference") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    feeds = {}
    for value in found.graph.inputs:
        assert value.dtype is not None
        feeds[str(value.name)] = rng.normal(1, 2, (2, 8, 4, 4)).astype(value.dtype.numpy())
    session = RUNTIMES.require(runtime).open(found)
    try:
        return {k: v.astype(np.float32) for k, v in session.run(feeds).items()}
    finally:
        session.close()


def alike(q: np.ndarray, wanted: np.ndarray, to: str, dtype: str) -> None:
    """The same but for one unit here and there, where what is rounded was itself rounded, or not, before."""
    unit = 1 if to == "int8" else np.maximum(np.abs(wanted) / 8, 2.0**-9)  # float8 has 3 bits after the first
    before = {"float32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype] * 4 / 0.03  # a value of 4, in units
    assert (np.abs(q - wanted) <= unit + before).all()
    assert np.mean(q != wanted) < 0.1


@pytest.mark.parametrize("to", CODES)
@pytest.mark.parametrize(("dtype", "cast"), [("float32", False), ("float16", False), ("bfloat16", True)])
@pytest.mark.parametrize("skip", [False, True])
def test_one_node_and_two_again(dtype: str, cast: bool, skip: bool, to: str) -> None:
    source = model(dtype=dtype, cast=cast, skip=skip, to=to)
    before = numbers(source)
    lowered, decisions = gn.lower(source, "tensorrt+plugin")
    assert [d.wrote for d in decisions] == ["plugin"]
    proto = ir.to_proto(lowered)
    onnx.checker.check_model(proto, full_check=True)
    (node,) = (n for n in proto.graph.node if n.domain == DOMAIN)
    assert node.op_type == ("SkipGroupNormQuantize" if skip else "GroupNormQuantize")
    assert "QuantizeLinear" not in operators(lowered)
    told = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert (told["output_type"], told["activation"]) == (to.encode(), b"silu")
    held = np.asarray(0.03).astype("float32" if cast else dtype)
    assert told["output_scale"] == np.float32(held)
    assert [f.name for f in proto.functions] == [node.op_type]
    after = numbers(ir.from_proto(proto))
    alike(after["q"], before["q"], to, dtype)
    if skip:
        np.testing.assert_array_equal(after["e"], before["e"])

    (site,) = gn.find(lowered)
    assert (site.form, str(site.spec.activation), site.spec.residual) == ("plugin", "silu", skip)
    again = gn.lower(lowered, "tensorrt+plugin")
    assert not any(d.wrote for d in again.decisions)
    assert operators(again.model) == operators(lowered)
    back = gn.lower(lowered, "onnx+instance_norm").model
    assert not back.functions
    assert operators(back).count("QuantizeLinear") == 1
    alike(numbers(back)["q"], before["q"], to, dtype)


@pytest.mark.parametrize(
    "what",
    [
        {"scale": np.linspace(0.01, 0.05, 8), "zero": np.zeros(8), "axis": 1},
        {"zero": 3},
        {"to": "uint8"},
        {"opset": 18},
        {"shown": True},
        {"to": "float8e4m3fn", "saturate": 0},
    ],
    ids=["a scale per channel", "a zero point", "unsigned", "an old opset", "y is an output", "no saturation"],
)
def test_what_the_plugin_does_not_do_stays_two_nodes(what: dict[str, object]) -> None:
    lowered = gn.lower(model(**what), "tensorrt+plugin").model  # type: ignore[arg-type]
    assert operators(lowered)[-2:] == ["GroupNorm", "QuantizeLinear"]
    onnx.checker.check_model(ir.to_proto(lowered), full_check=True)


def test_only_where_the_plugin_is_asked_for() -> None:
    assert "QuantizeLinear" in operators(gn.lower(model(), "tensorrt").model)
    assert operators(gn.lower(model(), "tensorrt+trt_plugins").model) == ["Identity", "GroupNormQuantize"]
    automatic = gn.lower(model(), "tensorrt+auto").model
    assert operators(automatic)[-1] == "QuantizeLinear"  # which TensorRT fuses with its own op


def test_the_pass_alone_has_nothing_to_do_the_second_time() -> None:
    lowered = gn.lower(model(), "tensorrt+plugin").model
    assert not LowerGroupNorm("tensorrt+plugin")(lowered).modified
    assert quantized(lowered) == 0
