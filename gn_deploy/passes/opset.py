"""Whether a model may declare another ONNX opset, newer or older, without any of its nodes changing its meaning."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import onnx.defs
import onnx.helper
import onnx_ir as ir

from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.nodes import says_all
from gn_deploy.graph.splice import Names
from gn_deploy.passes.respell import respell, respelled
from gn_deploy.sites import opset_of

_OLDEST = 13  # below it Softmax, Squeeze, ReduceSum and others changed their meaning under the same spelling
_Option = onnx.defs.OpSchema.FormalParameterOption


def may_change(model: ir.Model, opset: int, rewritten: frozenset[ir.Node]) -> Decision:
    """Whether ``model`` means the same at ``opset``; ``rewritten`` nodes will be gone by then.

    1. An op keeps its meaning when it has the same schema version at both opsets, or when the newer version only adds
       types, optional inputs, or attributes that default to the old behaviour, or when ``respell`` knows its new words.
    2. At an older opset a node must moreover use none of what was added: no attribute, input, output or element type.
       A type that is not known is let pass: it could make the model invalid, not mean something else.
    """
    current = opset_of(model)
    old, new = sorted((current, opset))
    change = f"raised to {opset}" if opset > current else f"lowered to {opset}"
    if old < _OLDEST:
        where = "to be raised" if old == current else "to be lowered to"
        return Rejected(f"opset {old} is too old {where} safely: several ops changed their meaning before {_OLDEST}")
    if new > onnx.defs.onnx_opset_version():
        return Rejected(f"opset {new} is newer than the installed onnx package knows")
    functions = _called(model, rewritten)
    for function in functions:
        if function.opset_imports.get("", current) != current:
            return Rejected(f"function '{function.name}' imports opset {function.opset_imports['']} of its own")
    for body in (model.graph, *(f.graph for f in functions)):
        facts = Facts(current)
        for node in body.all_nodes():
            if node.domain in ("", "ai.onnx") and node not in rewritten and not respelled(node, current, opset):
                kept = _keeps_meaning(node, old, new)
                if kept and opset == old:
                    kept = _has_all(node, old, facts)
                if not kept:
                    name = node.name or node.outputs[0].name
                    return Rejected(f"opset {current} cannot be {change}: {kept.reason} ('{name}')")
    return Accepted(f"opset {current} {change}: every op keeps its meaning")


def _called(model: ir.Model, rewritten: frozenset[ir.Node]) -> list[ir.Function]:
    """The functions that something still calls once the ``rewritten`` nodes are gone."""
    if not model.functions:
        return []
    called: dict[ir.Function, None] = {}
    stack = [model.graph]
    while stack:
        for node in stack.pop().all_nodes():
            function = None if node in rewritten else model.functions.get(node.op_identifier())
            if function is not None and function not in called:
                called[function] = None
                stack.append(function.graph)
    return list(called)


def change_opset(model: ir.Model, opset: int) -> None:
    """Declares ``opset``, and at least the IR version it needs; ``may_change`` must have accepted it."""
    current = opset_of(model)
    names = Names(model)
    for body in (model.graph, *(f.graph for f in model.functions.values())):
        for node in [node for node in body.all_nodes() if respelled(node, current, opset)]:
            respell(node, names)
    for imports in (model.opset_imports, *(f.opset_imports for f in model.functions.values())):
        for domain in {"", "ai.onnx"} & imports.keys():
            imports[domain] = opset
    needed = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)], ignore_unknown=True)
    model.ir_version = max(model.ir_version, needed)


class _Change(NamedTuple):
    """An op that means something else since a version, under the same spelling; not for the ``unaffected`` nodes."""

    op_type: str
    since: int
    what: str
    unaffected: Callable[[ir.Node], bool]


def _never(node: ir.Node) -> bool:
    return False


def _without_ceil(node: ir.Node) -> bool:
    return node.attributes.get_int("ceil_mode", 0) == 0


def _without_fnuz(node: ir.Node) -> bool:
    dtype = ir.DataType(node.attributes.get_int("to", 0)) or node.outputs[0].dtype
    return dtype is None or not dtype.name.endswith("FNUZ")


def _without(name: str, *words: str) -> Callable[[ir.Node], bool]:
    return lambda node: node.attributes.get_string(name, "") not in words


_INFINITY = "infinity became the largest number of float8 FNUZ types in 24, not NaN"
_WINDOWS = "since 22 it ignores windows that start in the padding under ceil_mode"
_CHANGES = (
    _Change("GroupNormalization", 21, "scale and bias are per group before 21 and per channel since", _never),
    _Change(
        "Split",
        18,
        "without the input 'split', the number of outputs became an attribute in 18",
        lambda node: len(node.inputs) > 1 and node.inputs[1] is not None,
    ),
    _Change("GridSample", 20, "the names of its modes changed in 20", _never),
    _Change("AveragePool", 19, "padding under ceil_mode is counted differently since 19", _without_ceil),
    _Change("AveragePool", 22, _WINDOWS, _without_ceil),
    _Change("MaxPool", 22, _WINDOWS, _without_ceil),
    _Change("Pad", 19, "mode wrap is of 19", _without("mode", "wrap")),
    _Change(
        "Resize",
        19,
        "half_pixel_symmetric is of 19",
        _without("coordinate_transformation_mode", "half_pixel_symmetric"),
    ),
    _Change("ScatterElements", 18, "the reductions max and min are of 18", _without("reduction", "max", "min")),
    _Change("ScatterND", 18, "the reductions max and min are of 18", _without("reduction", "max", "min")),
    _Change("Cast", 24, _INFINITY, _without_fnuz),
    _Change("CastLike", 24, _INFINITY, _without_fnuz),
    _Change("Mod", 28, "fmod = 0 is defined for floats since 28", lambda node: node.attributes.get_int("fmod", 0) == 1),
)
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


def _keeps_meaning(node: ir.Node, old: int, new: int) -> Decision:
    """Whether what the node says at both opsets is the same."""
    for op_type, since, what, unaffected in _CHANGES:
        if op_type == node.op_type and old < since <= new and not (says_all(node) and unaffected(node)):
            return Rejected(f"{_versions(op_type, old, new)}: {what}")
    return _extends(node.op_type, old, new)


@cache
def _extends(op_type: str, old: int, new: int) -> Decision:
    """Whether an op of the newer opset only adds to what it was at the older one."""
    before, after = _schema(op_type, old), _schema(op_type, new)
    if before is None or after is None:
        return Rejected(f"{op_type} is not an op of opset {old if before is None else new}")
    if before.since_version == after.since_version:
        return Accepted()
    if after.deprecated:
        return Rejected(f"{op_type} is deprecated")
    change = _versions(op_type, old, new)
    for name, attribute in before.attributes.items():
        now = after.attributes.get(name)
        if now is None or now.type != attribute.type or now.default_value != attribute.default_value:
            return Rejected(f"{change}: attribute {name} is not what it was")
    added = after.attributes.keys() - before.attributes.keys() - _HARMLESS_ATTRIBUTES
    if added:
        return Rejected(f"{change}: attribute {', '.join(sorted(added))} is new")
    for kind in ("inputs", "outputs"):
        was, is_now = getattr(before, kind), getattr(after, kind)
        same = [(p.option, p.is_homogeneous) for p in was] == [(p.option, p.is_homogeneous) for p in is_now[: len(was)]]
        if not same or any(p.option != _Option.Optional for p in is_now[len(was) :]):
            return Rejected(f"{change}: its {kind} are not what they were")
        for past, present in zip(was, is_now, strict=False):
            if not past.types <= present.types:
                gone = ", ".join(sorted(past.types - present.types))
                return Rejected(f"{change}: {past.name} no longer takes {gone}")
    return Accepted()


def _has_all(node: ir.Node, opset: int, facts: Facts) -> Decision:
    """Whether the op has, at an older opset, every attribute, input, output and type that the node uses."""
    schema = _schema(node.op_type, opset)
    assert schema is not None, "an op that is not there does not keep its meaning"
    where = f"{node.op_type} of opset {opset}"
    unknown = [name for name in node.attributes if name not in schema.attributes]
    if unknown:
        return Rejected(f"{where} has no attribute {', '.join(unknown)}")
    bound: dict[str, str] = {}
    for kind, values, formal in (("inputs", node.inputs, schema.inputs), ("outputs", node.outputs, schema.outputs)):
        variadic = bool(formal) and formal[-1].option == _Option.Variadic
        for i, value in enumerate(values):
            if value is None:
                continue
            if i >= len(formal) and not variadic:
                return Rejected(f"{where} has {len(formal)} {kind}, not {len(values)}")
            parameter = formal[min(i, len(formal) - 1)]
            dtype = facts.dtype(value) if isinstance(value.type, ir.TensorType | None) else None
            if dtype is None:
                continue
            spelled = f"tensor({dtype.name.lower()})"
            if spelled not in parameter.types:
                return Rejected(f"{where} does not take {spelled} as {parameter.name}")
            first = bound.setdefault(parameter.type_str, spelled) if parameter.is_homogeneous else spelled
            if first != spelled:
                return Rejected(f"{where} does not take {first} with {spelled}")
    return Accepted()


def _versions(op_type: str, old: int, new: int) -> str:
    found = [schema.since_version for version in (old, new) if (schema := _schema(op_type, version))]
    return f"{op_type} changed between versions {' and '.join(map(str, found))}"


@cache
def _schema(op_type: str, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op_type, opset)
    except onnx.defs.SchemaError:
        return None
