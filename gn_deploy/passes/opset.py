"""Whether a model may declare a newer ONNX opset without any of its nodes changing its meaning."""

from functools import cache

import onnx.defs
import onnx_ir as ir

from gn_deploy.decision import Accepted, Decision, Rejected

_OLDEST = 13  # below it Softmax, Squeeze, ReduceSum and others changed their meaning under the same spelling
_IR_VERSION = {21: 10, 22: 10, 23: 11, 24: 11, 25: 12}  # least IR version that knows the opset (onnx/helper.py)


def may_raise(model: ir.Model, opset: int, rewritten: frozenset[ir.Node]) -> Decision:
    """Whether ``model`` means the same at ``opset``; ``rewritten`` nodes will be gone by then.

    A node keeps its meaning when its op has the same schema version at both opsets, or one that only adds types,
    optional inputs, or attributes that default to the old behaviour.
    """
    current = model.graph.opset_imports.get("", 1)
    if current < _OLDEST:
        return Rejected(f"opset {current} is too old to be raised safely: several ops changed their meaning before 13")
    if opset > onnx.defs.onnx_opset_version():
        return Rejected(f"opset {opset} is newer than the installed onnx package knows")
    functions = list(model.functions.values())
    for function in functions:
        if function.opset_imports.get("", current) != current:
            return Rejected(f"function '{function.name}' imports opset {function.opset_imports['']} of its own")
    bodies = [model.graph, *(f.graph for f in functions)]
    for node in (n for body in bodies for n in body.all_nodes()):
        if node.domain in ("", "ai.onnx") and node not in rewritten:
            decision = _keeps_meaning(node.op_type, current, opset)
            if not decision and not _unaffected(node):
                return Rejected(f"opset {current} cannot be raised to {opset}: {decision.reason} ('{node.name}')")
    return Accepted(f"opset raised from {current} to {opset}: every op keeps its meaning")


def raise_opset(model: ir.Model, opset: int) -> None:
    """Declares ``opset``, and the IR version it needs; ``may_raise`` must have accepted it."""
    for imports in (model.opset_imports, *(f.opset_imports for f in model.functions.values())):
        if "" in imports:
            imports[""] = opset
    model.ir_version = max(model.ir_version, _IR_VERSION.get(opset, 10))


def _unaffected(node: ir.Node) -> bool:
    """Nodes of an op in ``_CHANGED_MEANING`` that do not use what changed."""
    if node.op_type == "Split":
        return len(node.inputs) > 1 and node.inputs[1] is not None
    return node.op_type == "AveragePool" and node.attributes.get_int("ceil_mode", 0) == 0


@cache
def _keeps_meaning(op_type: str, old: int, new: int) -> Decision:
    try:
        before, after = (onnx.defs.get_schema(op_type, version) for version in (old, new))
    except onnx.defs.SchemaError:
        return Rejected(f"{op_type} is not an op of both opsets")
    if before.since_version == after.since_version:
        return Accepted()
    change = f"{op_type} changed between versions {before.since_version} and {after.since_version}"
    if after.deprecated:
        return Rejected(f"{op_type} is deprecated")
    if op_type in _CHANGED_MEANING:
        return Rejected(f"{change}: {_CHANGED_MEANING[op_type]}")
    for name, attribute in before.attributes.items():
        now = after.attributes.get(name)
        if now is None or now.type != attribute.type or now.default_value != attribute.default_value:
            return Rejected(f"{change}: attribute {name} is not what it was")
    added = after.attributes.keys() - before.attributes.keys() - _HARMLESS_ATTRIBUTES
    if added:
        return Rejected(f"{change}: attribute {', '.join(sorted(added))} is new")
    for kind in ("inputs", "outputs"):
        was, now = getattr(before, kind), getattr(after, kind)
        same = [(p.option, p.is_homogeneous) for p in was] == [(p.option, p.is_homogeneous) for p in now[: len(was)]]
        optional = all(p.option == onnx.defs.OpSchema.FormalParameterOption.Optional for p in now[len(was) :])
        if not same or not optional:
            return Rejected(f"{change}: its {kind} are not what they were")
        for past, present in zip(was, now, strict=False):
            if not past.types <= present.types:
                gone = ", ".join(sorted(past.types - present.types))
                return Rejected(f"{change}: {past.name} no longer takes {gone}")
    return Accepted()


_HARMLESS_ATTRIBUTES = {
    "saturate",  # Cast-19, QuantizeLinear-19: only for float8 results
    "round_mode",  # Cast-24: only for float8e8m0 results
    "allowzero",  # Reshape-14: absent means 0 copies the size, as before
    "start",  # Shape-15: absent means 0
    "end",  # Shape-15: absent means all
    "ceil_mode",  # LpPool-18: 0 means as before
    "dilations",  # AveragePool-19: absent means 1
    "block_size",  # QuantizeLinear-21: absent means per tensor or per axis, as before
    "output_dtype",  # QuantizeLinear-21: absent means the zero point's type, as before
    "precision",  # QuantizeLinear-23: absent means the input's type, as before
    "antialias",  # Resize-18: 0 means as before
    "axes",  # Resize-18: absent means all, as before
    "keep_aspect_ratio_policy",  # Resize-18: "stretch" means as before
    "reduction",  # ScatterElements-16: "none" means as before
}
_CHANGED_MEANING = {
    "GroupNormalization": "scale and bias are per group before 21 and per channel since",
    "Split": "without the input 'split', the number of outputs became an attribute in 18",
    "GridSample": "the names of its modes changed in 20",
    "AveragePool": "padding under ceil_mode is counted differently since 19",
}
