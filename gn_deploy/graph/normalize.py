"""One plain spelling of a graph: no function calls, no Constant nodes, no decided branches, in order, with shapes."""

from collections.abc import Container
from typing import TYPE_CHECKING

from gn_deploy.errors import InputError
from gn_deploy.graph.branches import inline_branches
from gn_deploy.graph.io import paused_gc, sort
from gn_deploy.graph.shapes import infer_shapes

if TYPE_CHECKING:
    import onnx_ir as ir


PLUGIN = "gn_deploy"
"""The domain of nodes that stand for themselves: their bodies are for runtimes that have no plugin."""


def normalize(model: "ir.Model", *, keep_functions: Container[tuple[str, str]] = ()) -> "ir.Model":
    """Normalizes ``model`` in place and returns it; a second call changes nothing.

    1. Calls of the model's own functions are inlined, except the plugin's nodes, those whose (domain, name) is in
       ``keep_functions`` and those that cannot be: other opset, a graph as attribute, an input handed out unchanged.
    2. Constant nodes become initializers, whatever attribute holds their value; those that are graph outputs stay.
    3. An If whose condition is constant is replaced by the branch it takes.
    4. Nodes are in topological order; values without a type or a shape get one where ONNX can infer it.
    5. Names of values, metadata_props, doc_string, and types and shapes found in the file are kept.

    Steps with nothing to do are skipped. Raises InputError when functions call each other in a circle or a graph has
    a cycle. Cost at 20,000 nodes: 0.1 s, and 0.6 s more when shapes are missing.
    """
    with paused_gc():
        _inline_functions(model, keep_functions)
        lift_constants(model)
        inline_branches(model)
        if not all(_in_order(body, set()) for body in (model.graph, *(f.graph for f in model.functions.values()))):
            sort(model)
        infer_shapes(model)
    return model


def _inline_functions(model: "ir.Model", keep: Container[tuple[str, str]]) -> None:
    if not model.functions:
        return
    import onnx_ir as ir
    from onnx_ir.passes.common import InlinePass

    bodies = (model.graph, *(function.graph for function in model.functions.values()))
    graphs = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    with_graphs = {
        node.op_identifier()
        for body in bodies
        for node in body.all_nodes()
        if node.op_identifier() in model.functions and any(a.type in graphs for a in node.attributes.values())
    }
    imports = dict(model.opset_imports)
    inlined = set()
    for key, function in model.functions.items():
        outputs = list(function.outputs)
        plain = len(set(outputs)) == len(outputs) and not set(outputs) & set(function.inputs)
        same_opset = all(imports.get(domain, v) == v for domain, v in function.opset_imports.items())
        kept = function.domain == PLUGIN or (function.domain, function.name) in keep or key in with_graphs
        if not kept and plain and same_opset:
            imports |= function.opset_imports
            inlined.add(key)
    if not inlined:
        return
    try:
        InlinePass(criteria=lambda function: function.identifier() in inlined)(model)
    except (ir.passes.PreconditionError, ir.passes.PassError) as error:
        cause = str(error.__cause__ or error).split("\n")[0]
        raise InputError(f"the model's functions cannot be inlined: {cause}", "export it without functions") from error


def lift_constants(model: "ir.Model") -> None:
    """Makes initializers of the Constant nodes of every graph."""
    import onnx_ir as ir

    for graph in model.graphs():
        for node in graph:
            if node.op_type != "Constant" or node.domain:
                continue
            old = node.outputs[0]
            tensor = _constant(node)
            if tensor is None or old.is_graph_output():
                continue
            new = ir.Value(
                name=old.name,
                shape=ir.Shape(tensor.shape.numpy()),
                type=ir.TensorType(tensor.dtype),
                doc_string=old.doc_string,
                const_value=tensor,
                metadata_props={**node.metadata_props, **old.metadata_props},
            )
            graph.register_initializer(new)
            old.replace_all_uses_with(new)
            graph.remove(node, safe=True)


def _constant(node: "ir.Node") -> "ir.TensorProtocol | None":
    """The value of a Constant node (ONNX Constant-13: exactly one attribute); None when its kind is unknown."""
    import numpy as np
    import onnx_ir as ir

    if len(node.attributes) != 1:
        return None
    ((kind, attribute),) = node.attributes.items()
    if attribute.is_ref():
        return None
    value = attribute.value
    if kind == "value":
        return attribute.as_tensor()
    if kind in ("value_int", "value_ints"):
        return ir.Tensor(np.asarray(value, dtype=np.int64))
    if kind in ("value_float", "value_floats"):
        return ir.Tensor(np.asarray(value, dtype=np.float32))
    if kind in ("value_string", "value_strings"):
        strings = [value] if kind == "value_string" else list(value)
        shape = ir.Shape([] if kind == "value_string" else [len(strings)])
        return ir.StringTensor([s if isinstance(s, bytes) else s.encode() for s in strings], shape=shape)
    return None


def _in_order(graph: "ir.Graph", done: "set[ir.Node]") -> bool:
    """Whether every node of ``graph`` and its subgraphs comes after the nodes it reads; ``done`` are those before."""
    for node in graph:
        for value in node.inputs:
            if value is not None and (producer := value.producer()) is not None and producer not in done:
                return False
        for attribute in node.attributes.values():
            if attribute.type.name == "GRAPH" and not attribute.is_ref() and not _in_order(attribute.as_graph(), done):
                return False
        done.add(node)
    return True
