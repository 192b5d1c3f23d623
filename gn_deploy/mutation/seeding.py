"""A clone of a model in which one GroupNorm computes one named fault, and nothing else is different."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from gn_deploy.decision import Rejected
from gn_deploy.errors import InputError
from gn_deploy.faults import FAULTS
from gn_deploy.forms.base import GroupNormSite, Parameter
from gn_deploy.graph.io import sort
from gn_deploy.graph.provenance import stamp_node
from gn_deploy.graph.splice import Builder, Names, follow_with, splice
from gn_deploy.mutation import around, elements, parameters, precision, statistics
from gn_deploy.mutation.base import Spelling

SPELLINGS: Mapping[str, Spelling] = {
    **statistics.SPELLINGS,
    **parameters.SPELLINGS,
    **elements.SPELLINGS,
    **precision.SPELLINGS,
    **around.SPELLINGS,
}
"""Fault of ``gn_deploy.faults`` -> how it is written as ONNX nodes."""


def seed(model: ir.Model, site: GroupNormSite, fault: str | None) -> ir.Model | Rejected:
    """``model``, weights shared, with ``fault`` in ``site``; Rejected where ONNX nodes cannot express it there.

    1. ``site`` is one of ``sites.find(model)``; ``model`` itself is not changed. Without a fault nothing changes.
    2. The site's input, its output and everything outside keep their names, so that the site can be judged in place.
    3. The nodes are ONNX's own (or the site's form's), so whatever runs the model runs the fault.

    Raises InputError for a name that no fault has.
    """
    clone = model.clone()
    if fault is None:
        return clone
    spelling = SPELLINGS[named([fault])[0]]
    if site.invalid:
        return Rejected(site.invalid)
    if any(node.graph is site.graph for function in model.functions.values() for node in function):
        return Rejected("it stands in a function, which may be called more than once")
    there = _twin(model, clone, site)
    edit = spelling(there)
    if isinstance(edit, Rejected):
        return edit
    layer = edit.layer
    builder = Builder(Names(clone), f"{site.name}/seeded", site.opset)
    if edit.after:
        follow_with(layer.output, lambda y: edit.write(y, builder), builder)
    else:
        value = edit.write(layer.input, builder)
        splice(layer.nodes, layer.output, value, builder, in_function=False, only_old=True)
    for node in builder.nodes:
        stamp_node(node, f"fault: {fault}", site.form, there.bare.nodes)
    for domain in builder.domains:
        clone.opset_imports.setdefault(domain, 1)
    if builder.stands_for:
        sort(clone)
    return clone


def named(faults: Sequence[str] | None) -> tuple[str, ...]:
    """The names themselves, all of them for None; InputError for one that no fault has."""
    for fault in faults or ():
        if fault not in SPELLINGS:
            near = difflib.get_close_matches(fault, SPELLINGS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"one of: {', '.join(SPELLINGS)}"
            raise InputError(f"no fault is called '{fault}'", hint)
    return tuple(FAULTS) if faults is None else tuple(dict.fromkeys(faults))


def _twin(model: ir.Model, clone: ir.Model, site: GroupNormSite) -> GroupNormSite:
    """The same site in the clone, whose nodes stand in the same order."""
    values: dict[ir.Value, ir.Value] = {}
    nodes: dict[ir.Node, ir.Node] = {}
    graphs: dict[Any, Any] = {}
    for old, new in zip(model.graphs(), clone.graphs(), strict=True):
        graphs[old] = new
        values |= zip(old.inputs, new.inputs, strict=True)
        values |= {value: new.initializers[name] for name, value in old.initializers.items()}
        for a, b in zip(old, new, strict=True):
            nodes[a] = b
            values |= zip(a.outputs, b.outputs, strict=True)

    def held(parameter: Parameter | None) -> Parameter | None:
        return parameter and replace(parameter, value=parameter.value and values[parameter.value])

    def moved(layer: GroupNormSite) -> GroupNormSite:
        return replace(
            layer,
            input=values[layer.input],
            output=values[layer.output],
            scale=held(layer.scale),
            bias=held(layer.bias),
            nodes=tuple(nodes[node] for node in layer.nodes),
            operands={name: values[value] for name, value in layer.operands.items()},
            sum=layer.sum and values[layer.sum],
            inner=layer.inner and moved(layer.inner),
            graph=graphs.get(layer.graph),
        )

    return moved(site)
