"""An If whose condition is known, replaced by the branch it takes."""

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


def inline_branches(model: "ir.Model") -> None:
    """Replaces, in place, every If of the main graph and its subgraphs whose condition is a constant.

    Values keep their names unless two would share one; what the If computed keeps the If's names.
    """
    import onnx_ir as ir

    # outer ones come first, so an If inside a taken branch has moved before its turn comes
    decided = [
        (node, taken)
        for node in ir.traversal.RecursiveGraphIterator(model.graph)
        if node.op_type == "If" and not node.domain and (taken := _taken(node)) is not None
    ]
    if not decided:
        return
    names: Counter[str | None] = Counter()
    for graph in model.graphs():
        names.update(value.name for value in (*graph.inputs, *graph.initializers.values()))
        names.update(value.name for node in graph for value in node.outputs)
    for node, branch in decided:
        _replace(node, branch, names)


def _taken(node: "ir.Node") -> "ir.Graph | None":
    """The branch that ``node`` always takes; None when it depends on the data, or the node is not a proper If."""
    condition = node.inputs[0] if node.inputs else None
    if condition is None or condition.const_value is None or condition.is_graph_input():
        return None  # an initializer that is also an input is only a default
    numbers = condition.const_value.numpy()
    branch = node.attributes.get_graph("then_branch" if numbers.all() else "else_branch")
    return branch if branch is not None and numbers.size == 1 and len(branch.outputs) == len(node.outputs) else None


def _replace(node: "ir.Node", branch: "ir.Graph", names: "Counter[str | None]") -> None:
    import onnx_ir as ir

    parent = node.graph
    assert isinstance(parent, ir.Graph)
    results = list(branch.outputs)
    branch.outputs.clear()
    for value in list(branch.initializers.values()):
        assert value.name is not None
        del branch.initializers[value.name]
        _rename(value, names)
        parent.register_initializer(value)
    nodes = list(branch)
    branch.remove(nodes)
    for moved in nodes:
        for value in moved.outputs:
            _rename(value, names)
    parent.insert_before(node, nodes)
    inside = {value for moved in nodes for value in moved.outputs}
    for old, new in zip(node.outputs, results, strict=True):
        if new in inside:
            inside.discard(new)  # a branch may return one value twice; only one of them can have the name
            names[new.name] -= 1
            new.name = old.name
        elif old.is_graph_output():
            copy = ir.Node("", "Identity", [new], outputs=[ir.Value(name=old.name)], name=f"{node.name}/{old.name}")
            parent.insert_before(node, copy)
            new = copy.outputs[0]
        else:
            old.replace_all_uses_with(new)
            continue
        if old.is_graph_output():  # the interface of the graph is what the file declares
            new.type, new.shape = old.type or new.type, old.shape if old.shape is not None else new.shape
        new.metadata_props.update(old.metadata_props)
        new.doc_string = old.doc_string or new.doc_string
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    parent.remove(node, safe=True)


def _rename(value: "ir.Value", names: "Counter[str | None]") -> None:
    """Gives ``value`` a new name if another value has the same."""
    wanted = value.name
    if not wanted or names[wanted] < 2:
        return
    count = 2
    while names[f"{wanted}_{count}"]:
        count += 1
    names[wanted] -= 1
    value.name = f"{wanted}_{count}"
    names[value.name] += 1
