"""The plugin's node and the QuantizeLinear that reads it as one node, and as two again."""

import numpy as np
import onnx_ir as ir

from gn_deploy.forms.base import DTYPES
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.io import sort
from gn_deploy.graph.nodes import is_plain, sole_consumer
from gn_deploy.graph.splice import Builder, Names, splice
from gn_deploy.passes.rewrite import drop_uncalled
from gn_deploy.plugin.function import CODES, QUANTIZE_SINCE, function, rounding
from gn_deploy.plugin.node import DOMAIN
from gn_deploy.sites import opset_of

_DOMAINS = (DOMAIN, "trt.plugins")
_OPS = ("GroupNorm", "SkipGroupNorm")
_SUFFIX = "Quantize"
_TYPES = {code: name for name, code in CODES.items()}


def quantized(model: ir.Model) -> int:
    """Joins each plugin node with the QuantizeLinear that alone reads its y, and returns how many there were.

    1. One scale for the whole tensor, known; zero point 0; int8 or float8e4m3fn; opset 19.
    2. The body of the new node is the two nodes. The plugin rounds once where they round to x's type in between.
    """
    opset, names, count = opset_of(model), Names(model), 0
    facts = Facts(opset, model.graph.inputs)
    if opset < QUANTIZE_SINCE:
        return 0
    for node in list(model.graph.all_nodes()):
        if node.domain not in _DOMAINS or node.op_type not in _OPS or "plugin_namespace" not in node.attributes:
            continue
        reader = sole_consumer(node.outputs[0])
        between = [reader] if reader is not None and reader.op_type == "Cast" and is_plain(reader) else []
        if between and facts.dtype(between[0].outputs[0]) is ir.DataType.FLOAT:
            reader = sole_consumer(between[0].outputs[0])
        told = None if reader is None or reader.graph is not node.graph else _rounding(reader, facts)
        if reader is None or told is None:
            continue
        code, scale = told
        op = node.op_type + _SUFFIX
        made = [ir.Value(name=names.fresh(f"{node.name}_{i}"), type=v.type) for i, v in enumerate(node.outputs)]
        made[0].type = ir.TensorType(ir.DataType(code))
        new = ir.Node(node.domain, op, node.inputs, outputs=made, name=names.fresh(f"{node.name}{_SUFFIX}"))
        new.metadata_props.update(node.metadata_props)
        told_more: dict[str, float | str | ir.TensorProtocol] = {"output_type": _TYPES[code], "output_scale": scale}
        if node.domain == DOMAIN:
            told_more |= rounding(_TYPES[code])
            model.functions.setdefault((DOMAIN, op, ""), function(op, opset))
        new.attributes.update(node.attributes)
        new.attributes.update({a.name: a for a in ir.convenience.convert_attributes(told_more)})
        builder = Builder(names, node.name or op, opset)
        builder.nodes.append(new)
        if len(made) > 1:
            builder.stands_for[node.outputs[1]] = made[1]
        splice([node, *between, reader], reader.outputs[0], made[0], builder, in_function=False)
        count += 1
    if count:
        sort(model)  # readers of the sum may stand before the QuantizeLinear
        drop_uncalled(model)
    return count


def unquantized(model: ir.Model) -> ir.Model:
    """Splits them again, in place, so that the GroupNorm is found like any other; the model itself."""
    nodes = [n for n in model.graph.all_nodes() if n.domain in _DOMAINS and n.op_type.endswith(_SUFFIX)]
    if not nodes:
        return model
    opset, names = opset_of(model), Names(model)
    facts = Facts(opset, model.graph.inputs)
    for node in nodes:
        op, x = node.op_type.removesuffix(_SUFFIX), node.inputs[0]
        code = CODES.get(node.attributes.get_string("output_type", ""))
        dtype = None if x is None else facts.dtype(x)
        if op not in _OPS or code is None or dtype is None or dtype not in DTYPES.values():
            continue
        builder = Builder(names, node.name or op, opset)
        kept = {k: a for k, a in node.attributes.items() if k not in ("zero_point", "is_int8")}
        made = [ir.Value(name=names.fresh(f"{node.name}_y"), shape=node.outputs[0].shape, type=ir.TensorType(dtype))]
        made += [ir.Value(name=names.fresh(f"{node.name}_sum"), shape=v.shape, type=v.type) for v in node.outputs[1:]]
        new = ir.Node(node.domain, op, node.inputs, outputs=made, name=names.fresh(f"{node.name}_{op}"))
        new.metadata_props.update(node.metadata_props)
        plain = ir.convenience.convert_attributes({"output_type": "x", "output_scale": 1.0})
        new.attributes.update(kept | {a.name: a for a in plain})
        builder.nodes.append(new)
        scale, y = np.float32(node.attributes.get_float("output_scale", 1.0)), made[0]
        if scale.astype(dtype.numpy()).astype(np.float32) != scale:
            dtype = ir.DataType.FLOAT
            y = builder.op("Cast", [y], {"to": int(dtype)}, dtype=dtype)
        kind = ir.DataType(code)
        step = builder.constant(scale.astype(dtype.numpy()).reshape(()), "scale", dtype)
        zero = builder.constant(np.zeros((), kind.numpy()), "zero_point", kind)
        result = builder.op("QuantizeLinear", [y, step, zero], dtype=kind)
        if node.domain == DOMAIN:
            model.functions.setdefault((DOMAIN, op, ""), function(op, opset))
        if len(made) > 1:
            builder.stands_for[node.outputs[1]] = made[1]
        splice([node], node.outputs[0], result, builder, in_function=False)
    drop_uncalled(model)
    return model


def _rounding(node: ir.Node, facts: Facts) -> tuple[int, float] | None:
    """The type's code and the scale of a QuantizeLinear that the plugin can do; None of any other node."""
    if node.op_type != "QuantizeLinear" or not is_plain(node):
        return None
    scale, zero = [*node.inputs[1:], None, None][:2]
    number, attributes = facts.scalar(scale), node.attributes
    if zero is not None:
        dtype, array = facts.dtype(zero), facts.constant(zero)
        if array is None or np.any(array.astype(np.float32) != 0):
            return None
    else:
        dtype = ir.DataType(attributes.get_int("output_dtype", int(ir.DataType.UINT8)))
    code = 0 if dtype is None else int(dtype)
    if code not in _TYPES or number is None or not number > 0 or float(np.float32(number)) != number:
        return None
    if attributes.get_int("block_size", 0) or not attributes.get_int("saturate", 1):
        return None
    return code, number
