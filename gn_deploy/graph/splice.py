"""Putting new nodes where old ones were: names, types and metadata kept, whatever is still read stays alive."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from gn_deploy.graph.subgraphs import subgraphs

Attribute = int | float | str | Sequence[int] | ir.TensorProtocol


class Names:
    """Fresh names for a whole model: its graphs share one scope, so one set serves them all."""

    def __init__(self, model: ir.Model) -> None:
        self._taken: set[str] = set()
        for graph in (model.graph, *(f.graph for f in model.functions.values())):
            self._taken.update(v.name for v in (*graph.inputs, *graph.initializers.values()) if v.name)
            for node in graph.all_nodes():
                self._taken.add(node.name or "")
                self._taken.update(v.name for v in node.outputs if v.name)
                for inner in subgraphs(node):
                    self._taken.update(v.name for v in (*inner.inputs, *inner.initializers.values()) if v.name)

    def fresh(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        return name


class Builder:
    """Collects the nodes of one replacement; nothing in the graph changes until ``splice``.

    ``opset`` is the ONNX opset the nodes may use; ``prefix`` starts the names of everything new.
    """

    def __init__(self, names: Names, prefix: str, opset: int, *, min_rank: int = 2) -> None:
        self.opset = opset
        self.min_rank = min_rank
        """Lowest rank of a normalization's input that the runtime takes (TensorRT: 3)."""
        self.nodes: list[ir.Node] = []
        self.initializers: list[ir.Value] = []
        self.domains: set[str] = set()
        """Of the operators that are not ONNX's own."""
        self.functions: dict[tuple[str, str, str], Callable[[], ir.Function]] = {}
        """What makes the bodies of such operators, by (domain, name, overload)."""
        self.stands_for: dict[ir.Value, ir.Value] = {}
        """Other values of the graph that the new nodes compute as well: the old one -> the new one."""
        self._names = names
        self._prefix = prefix

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Attribute] | None = None,
        *,
        dtype: ir.DataType | None = None,
        shape: ir.Shape | None = None,
        domain: str = "",
    ) -> ir.Value:
        """Appends a node and returns its only output."""
        return self.ops(op_type, inputs, attributes, dtype=dtype, shape=shape, domain=domain)[0]

    def ops(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Attribute] | None = None,
        *,
        outputs: int = 1,
        dtype: ir.DataType | None = None,
        shape: ir.Shape | None = None,
        domain: str = "",
    ) -> list[ir.Value]:
        """Appends a node and returns its outputs, which are all of one type and shape."""
        name = self._names.fresh(f"{self._prefix}/{op_type}")
        kind = None if dtype is None else ir.TensorType(dtype)
        made = [ir.Value(name=self._names.fresh(f"{name}_output"), shape=shape, type=kind) for _ in range(outputs)]
        attrs = ir.convenience.convert_attributes(attributes or {})
        self.nodes.append(ir.Node(domain, op_type, inputs, attrs, outputs=made, name=name))
        if domain:
            self.domains.add(domain)
        return made

    def constant(self, array: NDArray[np.generic], role: str, dtype: ir.DataType | None = None) -> ir.Value:
        """A constant tensor as an initializer (as a Constant node inside a function, which cannot hold any)."""
        name = self._names.fresh(f"{self._prefix}/{role}")
        tensor = ir.tensor(np.ascontiguousarray(array).reshape(array.shape), dtype=dtype, name=name)
        value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
        self.initializers.append(value)
        return value

    def fresh(self, wanted: str) -> str:
        """A name that nothing in the model has."""
        return self._names.fresh(wanted)

    def ints(self, numbers: Iterable[int], role: str) -> ir.Value:
        return self.constant(np.asarray(list(numbers), dtype=np.int64), role)


def splice(
    old: Sequence[ir.Node],
    output: ir.Value,
    new: ir.Value,
    builder: Builder,
    *,
    in_function: bool,
    only_old: bool = False,
) -> None:
    """Makes ``new`` stand for ``output``, then removes what nobody reads any more (with ``only_old``: of ``old``).

    1. The value keeps its name, type and shape, also as a graph output; readers do not notice.
    2. Of ``old``, nodes whose outputs are still read elsewhere, or are graph outputs, stay.
    3. New nodes stand where the producer of ``output`` stood, after everything they read; readers of what they also
       ``stands_for`` may stand before them, so the graph is to be sorted then.
    """
    anchor = output.producer()
    assert anchor is not None
    graph = anchor.graph
    assert graph is not None
    if in_function:
        constants = [
            ir.Node("", "Constant", [], [ir.AttrTensor("value", v.const_value)], outputs=[v])  # type: ignore[arg-type]
            for v in builder.initializers
        ]
        graph.insert_before(anchor, constants)
    else:
        owner = graph if isinstance(graph, ir.Graph) else graph.graph
        for value in builder.initializers:
            owner.register_initializer(value)
    graph.insert_before(anchor, builder.nodes)
    for was, now in (*builder.stands_for.items(), (output, new)):
        _succeed(was, now)
    remove_dead([anchor, *reversed(old)], among=frozenset(old) if only_old else None)


def follow_with(output: ir.Value, build: Callable[[ir.Value], ir.Value], builder: Builder) -> None:
    """Makes what ``build`` computes from ``output`` stand for it: its readers, its name, its place among the outputs.

    ``build`` adds nodes through ``builder`` and returns the value; ``output`` lives on under another name.
    """
    anchor = output.producer()
    assert anchor is not None
    graph = anchor.graph
    assert graph is not None
    stand_in = ir.Value(name=output.name, shape=output.shape, type=output.type)
    new = build(stand_in)
    owner = graph if isinstance(graph, ir.Graph) else graph.graph
    for value in builder.initializers:
        owner.register_initializer(value)
    name = builder.fresh(f"{output.name}_before")
    graph.insert_after(anchor, builder.nodes)
    _succeed(output, new)
    stand_in.replace_all_uses_with(output)
    output.name = name


def _succeed(old: ir.Value, new: ir.Value) -> None:
    """Gives ``new`` the readers, name, type, shape and metadata of ``old``."""
    name = old.name
    new.type, new.shape = old.type or new.type, old.shape or new.shape
    new.metadata_props.update(old.metadata_props)
    new.doc_string = old.doc_string
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    old.name = None
    new.name = name


def remove_dead(candidates: Iterable[ir.Node], *, among: Collection[ir.Node] | None = None) -> None:
    """Removes those nodes whose outputs nobody reads, then their producers that were read by nobody else.

    With ``among`` no other node is removed.
    """
    stack = list(candidates)
    while stack:
        node = stack.pop()
        graph = node.graph
        if graph is None or any(v.uses() or v.is_graph_output() for v in node.outputs):
            continue
        inputs = [v for v in node.inputs if v is not None]
        graph.remove(node, safe=True)
        for value in inputs:
            producer = value.producer()
            if producer is not None:
                stack += [producer] if among is None or producer in among else []
            elif value.is_initializer() and not value.uses() and not value.is_graph_output():
                owner = value.graph
                if owner is not None and value.name is not None and not value.is_graph_input():
                    del owner.initializers[value.name]


def dying_with(nodes: Iterable[ir.Node], kept: Collection[ir.Value] = ()) -> frozenset[ir.Node]:
    """``nodes`` and every node that only they, or others of the result, read: what ``splice`` removes with outputs.

    ``kept`` is what their successors read as well.
    """
    dying = set(nodes)
    stack = [v for node in dying for v in node.inputs]
    while stack:
        value = stack.pop()
        producer = value.producer() if value is not None else None
        if producer is None or producer in dying or value in kept:
            continue
        if all(not v.is_graph_output() and all(u.node in dying for u in v.uses()) for v in producer.outputs):
            dying.add(producer)
            stack.extend(producer.inputs)
    return frozenset(dying)
