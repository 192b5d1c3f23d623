"""Parts of a model as models of their own: a region cut out, and a clone that also shows its inner values."""

from collections.abc import Sequence

import onnx_ir as ir

from gn_deploy.errors import InputError
from gn_deploy.graph.subgraphs import subgraphs

_MAX_NAMED = 3  # names shown in a message before it is cut short


def named_values(model: ir.Model, names: Sequence[str]) -> list[ir.Value]:
    """The values of the main graph with these names, in this order; InputError when one is not there."""
    graph = model.graph
    known = {v.name: v for v in (*graph.inputs, *graph.initializers.values())}
    known |= {v.name: v for node in graph for v in node.outputs}
    missing = [n for n in names if n not in known]
    if missing:
        raise InputError(f"no value named {', '.join(missing[:_MAX_NAMED])} in the main graph of the model")
    return [known[n] for n in names]


def cut(model: ir.Model, inputs: Sequence[str | ir.Value], outputs: Sequence[str | ir.Value]) -> ir.Model:
    """The region that computes ``outputs`` from ``inputs``, as a model that shares the weights.

    1. Graph inputs on the way that are not among ``inputs`` become inputs of the result, after them.
    2. Values of any graph may be given (not only names of the main graph); initializers of outer graphs come along.
    3. An input that ``outputs`` do not depend on stays an input.
    """
    starts = _as_values(model, inputs)
    ends = _as_values(model, outputs)
    nodes: dict[ir.Node, None] = {}
    free: dict[ir.Value, None] = {}
    constants: dict[ir.Value, None] = {}
    stop = set(starts)
    stack: list[tuple[ir.Value, bool]] = [(v, False) for v in reversed(ends)]
    seen: set[ir.Value] = set()
    while stack:  # depth first, a node after everything it needs
        value, done = stack.pop()
        producer = value.producer()
        if done:
            assert producer is not None
            nodes[producer] = None
            continue
        if value in seen or value in stop:
            continue
        seen.add(value)
        if producer is None:
            (constants if value.is_initializer() else free)[value] = None
            continue
        stack.append((value, True))
        stack.extend((v, False) for v in reversed(needs(producer)) if v not in seen)
    given = list(dict.fromkeys(starts))
    view = ir.GraphView(
        [*given, *free],
        list(dict.fromkeys(ends)),
        nodes=tuple(nodes),
        initializers=tuple(constants),
        opset_imports=dict(model.graph.opset_imports),
        name="cut",
    )
    return ir.Model(view.clone(), ir_version=model.ir_version, functions=tuple(model.functions.values()))


def tap(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A clone, weights shared, whose outputs also include the named values of its main graph (outputs stay first)."""
    clone = model.clone()
    present = {v.name for v in clone.graph.outputs}
    extra = [v for v in named_values(clone, list(dict.fromkeys(names))) if v.name not in present]
    clone.graph.outputs.extend(extra)
    return clone


def _as_values(model: ir.Model, given: Sequence[str | ir.Value]) -> list[ir.Value]:
    names = [v for v in given if isinstance(v, str)]
    found = iter(named_values(model, names) if names else [])
    return [v if isinstance(v, ir.Value) else next(found) for v in given]


def needs(node: ir.Node) -> list[ir.Value]:
    """Everything a node reads: its inputs and what its subgraphs take from outside."""
    needed = [v for v in node.inputs if v is not None]
    return needed + [v for graph in subgraphs(node) for v in _outer(graph)]


def _outer(graph: ir.Graph) -> list[ir.Value]:
    own = {*graph.inputs, *graph.initializers.values()}
    found: list[ir.Value] = []
    for node in graph:
        found += [v for v in needs(node) if v not in own]
        own.update(node.outputs)
    return found + [v for v in graph.outputs if v not in own]
