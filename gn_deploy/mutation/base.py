"""How a fault is put into a graph: the layer of a site that is written anew, and the nodes that stand for it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from gn_deploy.around.write import own_part, write
from gn_deploy.decision import Decision, Rejected
from gn_deploy.forms import FORMS
from gn_deploy.forms.base import Form, GroupNormSite, NearMiss
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.splice import Builder
from gn_deploy.registry import Unavailable
from gn_deploy.spec import GroupNormSpec

OPSET = 13
"""From which on every operator that a fault may need takes every floating-point type."""
ANY = 1
"""Where the form says by itself what it needs."""
Normalize = Callable[[GroupNormSite, Builder], ir.Value]
"""Writes a site without anything around it; its answer, in the shape and type of ``site.input``."""


@dataclass(frozen=True, slots=True, eq=False)
class Edit:
    """``write`` adds nodes that stand for ``layer.output``.

    1. They replace the nodes of the layer; with ``after`` those stay, and the new ones read their output.
    2. What ``write`` is given is that output, or the layer's input, which it need not use.
    """

    layer: GroupNormSite
    write: Callable[[ir.Value, Builder], ir.Value]
    after: bool = False


Spelling = Callable[[GroupNormSite], Edit | Rejected]
"""A fault in one site, or why ONNX nodes cannot express it there."""


class Altered:
    """A form with a fault in it, for ``around.write``, which writes what stands around as ever."""

    name = "altered"
    roots: Sequence[str] = ()

    def __init__(self, normal: Normalize, fuses: frozenset[str] = frozenset()) -> None:
        self.normal, self.fuses = normal, fuses

    def read(self, node: ir.Node, facts: Facts) -> GroupNormSite | NearMiss | None:
        return None

    def write(self, site: GroupNormSite, builder: Builder) -> ir.Value:
        return self.normal(site, builder)

    def legal(self, spec: GroupNormSpec, opset: int) -> Decision:
        return Rejected("it computes something else")

    def min_opset(self, spec: GroupNormSpec) -> int:
        return OPSET


def form_for(site: GroupNormSite, spec: GroupNormSpec) -> Form | Rejected:
    """The site's own form where it can be written with ``spec``, else another that computes nothing around it."""
    why = Rejected(f"no form can be written at opset {site.opset}")
    for name in dict.fromkeys((site.form, "instance_norm", "primitives")):
        form = FORMS.get(name) if name in FORMS.names() else None
        if form is None or isinstance(form, Unavailable):
            continue
        legal = form.legal(own_part(spec, form.fuses), site.opset)
        if legal:
            return form
        why = Rejected(f"{name}: {legal.reason}")
    return why


def inside(site: GroupNormSite, normal: Normalize, since: int = OPSET) -> Edit | Rejected:
    """``normal`` in place of the innermost layer; the nodes around it stay as they are."""
    if site.opset < since:
        return Rejected(f"it needs opset {since}, the model has {site.opset}")
    if site.bare.spec.rank is None:
        return Rejected("the rank of its input is not known")
    return Edit(site.bare, lambda _, builder: write(site.bare, Altered(normal), builder))


def whole(site: GroupNormSite, changed: Callable[[Builder], GroupNormSite], spec: GroupNormSpec) -> Edit | Rejected:
    """The site as ``changed`` makes it, with ``spec``, in place of it and everything around it."""
    form = form_for(site.bare, spec)
    return form if isinstance(form, Rejected) else Edit(site, lambda _, builder: write(changed(builder), form, builder))
