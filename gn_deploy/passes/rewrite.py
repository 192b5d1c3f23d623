"""Writing one site in a form: in its graph, or in a copy of its region."""

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir

from gn_deploy.around.write import write
from gn_deploy.forms.base import Form, GroupNormSite, Parameter
from gn_deploy.graph.provenance import stamp_node
from gn_deploy.graph.splice import Builder, Names, splice
from gn_deploy.plugin.node import DOMAIN as PLUGIN

_FUNCTIONS_SINCE = 8  # IR version


def rewrite(
    site: GroupNormSite, form: Form, names: Names, opset: int, min_rank: int, model: ir.Model
) -> dict[ir.Value, ir.Value]:
    """Writes ``site`` as ``form`` in its graph; returns what replaced its output and, where others read it, its sum."""
    scope = _scope(model, site)
    module, _, kind = site.name.rpartition("/")  # TorchScript names nodes "/down.1/norm2/InstanceNormalization"
    prefix = module if module and any(kind.startswith(node.op_type) for node in site.nodes) else site.name
    builder = Builder(names, prefix, opset, min_rank=min_rank)
    value = write(site, form, builder)
    for node in builder.nodes:
        stamp_node(node, form.name, site.form, site.nodes)
    splice(site.nodes, site.output, value, builder, in_function=isinstance(scope, ir.Function))
    for domain in builder.domains:
        scope.opset_imports.setdefault(domain, 1)
    if builder.functions:
        model.ir_version = max(model.ir_version, _FUNCTIONS_SINCE)
        model.functions.update({key: body() for key, body in builder.functions.items() if key not in model.functions})
    return {site.output: value, **builder.stands_for}


def drop_uncalled(model: ir.Model) -> None:
    """Removes the bodies of the plugin's nodes that no node is left of."""
    called = {node.op_identifier() for graph in model.graphs() for node in graph}
    for key, body in list(model.functions.items()):
        if body.domain == PLUGIN and key not in called:
            del model.functions[key]


def moved(site: GroupNormSite, now: Mapping[ir.Value, ir.Value]) -> GroupNormSite:
    """``site`` reading the values that stand in the graph now."""
    return replace(
        site,
        input=now.get(site.input, site.input),
        operands={name: now.get(value, value) for name, value in site.operands.items()},
        sum=None if site.sum in now else site.sum,  # another one of the same sum gives it
        scale=_held(site.scale, now),
        bias=_held(site.bias, now),
    )


def in_copy(site: GroupNormSite, model: ir.Model) -> GroupNormSite:
    """``site`` in a copy of its region, found by the names of its values."""
    values: dict[str | None, ir.Value] = {v.name: v for v in model.graph.inputs}
    values |= {v.name: v for v in model.graph.initializers.values()}
    values |= {v.name: v for node in model.graph for v in node.outputs}

    def there(held: Parameter | None) -> Parameter | None:
        return None if held is None else replace(held, value=values.get(held.value.name) if held.value else None)

    return replace(
        site,
        input=values[site.input.name],
        output=values[site.output.name],
        operands={name: values[value.name] for name, value in site.operands.items()},
        sum=None,  # only the output is judged
        scale=there(site.scale),
        bias=there(site.bias),
        nodes=tuple(model.graph),
        graph=model.graph,
    )


def last_node(site: GroupNormSite) -> ir.Node:
    producer = site.output.producer()
    assert producer is not None, "the output of a site is computed by its nodes"
    return producer


def _scope(model: ir.Model, site: GroupNormSite) -> ir.Model | ir.Function:
    """What declares the operator sets of the place: the function the site is in, else the model."""
    if site.graph is model.graph:
        return model
    return next((f for f in model.functions.values() if any(n.graph is site.graph for n in f.all_nodes())), model)


def _held(held: Parameter | None, now: Mapping[ir.Value, ir.Value]) -> Parameter | None:
    if held is None or held.value is None:
        return held
    return replace(held, value=now.get(held.value, held.value))
