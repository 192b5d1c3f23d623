"""Faults of what stands around the normalization: activation and residual."""

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir

from gn_deploy.around.activation import write_activation
from gn_deploy.around.write import broadcast, write
from gn_deploy.decision import Rejected
from gn_deploy.faults.around import MISTAKEN
from gn_deploy.forms.base import DTYPES, GroupNormSite
from gn_deploy.graph.splice import Builder
from gn_deploy.mutation.base import Edit, Spelling, form_for, whole
from gn_deploy.spec import Activation

_RESIDUAL = ("residual", "residual_bias")


def _instead(table: Mapping[Activation, Activation], lacking: str) -> Spelling:
    """Another activation in place of the site's."""

    def edit(site: GroupNormSite) -> Edit | Rejected:
        if site.spec.activation not in table:
            return Rejected(lacking)
        spec = replace(site.spec, activation=table[site.spec.activation])
        return whole(site, lambda _: replace(site, spec=spec), spec)

    return edit


def _without_residual(site: GroupNormSite) -> GroupNormSite:
    others = {name: value for name, value in site.operands.items() if name not in _RESIDUAL}
    return replace(site, spec=replace(site.spec, residual=False), operands=others, sum=None)


def _dropped(site: GroupNormSite) -> Edit | Rejected:
    if not site.spec.residual:
        return Rejected("it has no residual")
    bare = _without_residual(site)
    return whole(site, lambda _: bare, bare.spec)


def _added_after(site: GroupNormSite) -> Edit | Rejected:
    if not site.spec.residual:
        return Rejected("it has no residual")
    bare = _without_residual(site)
    bare = replace(bare, spec=replace(bare.spec, activation=Activation.NONE))
    form = form_for(site.bare, bare.spec)
    if isinstance(form, Rejected):
        return form
    dtype = DTYPES[site.spec.dtype]

    def added(_x: ir.Value, builder: Builder) -> ir.Value:
        y = write(bare, form, builder)
        for name in _RESIDUAL:
            if name in site.operands:
                y = builder.op("Add", [y, broadcast(site, name, builder)], dtype=dtype)
        return write_activation(y, site.spec.activation, builder)

    return Edit(site, added)


_OTHER_GELU: Mapping[Activation, Activation] = {
    Activation.GELU: Activation.GELU_TANH,
    Activation.GELU_TANH: Activation.GELU,
}
_NONE: Mapping[Activation, Activation] = {a: Activation.NONE for a in Activation if a is not Activation.NONE}
SPELLINGS: dict[str, Spelling] = {
    "activation missing": _instead(_NONE, "it has no activation"),
    "another activation": _instead(MISTAKEN, "it has no activation"),
    "the other GELU": _instead(_OTHER_GELU, "its activation is not GELU"),
    "residual dropped": _dropped,
    "residual added after": _added_after,
}
