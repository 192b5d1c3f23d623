"""Looking around a site from the inside out, one thing at a time."""

from dataclasses import replace

import onnx_ir as ir

from gn_deploy.around.activation import activation_after
from gn_deploy.around.casts import with_casts
from gn_deploy.around.layout import with_transposes
from gn_deploy.around.modulation import with_modulation
from gn_deploy.around.residual import with_residual
from gn_deploy.forms.base import GroupNormSite
from gn_deploy.graph.facts import Facts
from gn_deploy.spec import Activation


def _with_activation(site: GroupNormSite, facts: Facts) -> GroupNormSite | None:
    found = activation_after(site.output, facts) if site.spec.activation is Activation.NONE else None
    if found is None:
        return None
    activation, nodes = found
    spec = replace(site.spec, activation=activation)
    return replace(site, spec=spec, output=nodes[-1].outputs[0], nodes=(*site.nodes, *nodes), inner=site)


_INSIDE = (with_casts, with_modulation, _with_activation)
_INSIDE_OUT = (*_INSIDE, with_transposes, *_INSIDE, with_residual)
"""Casts, modulation and activation may stand inside of the Transposes or outside."""


def look_around(site: GroupNormSite, facts: Facts, taken: set[ir.Node]) -> GroupNormSite:
    """The site with everything around it that can be proved to belong to it.

    ``taken`` nodes are others' already, and this one's are added; a sum with a residual may be that of several sites.
    """
    if site.invalid:
        return site
    asked: dict[object, GroupNormSite] = {}
    for look in _INSIDE_OUT:
        wider = None if asked.get(look) is site else look(site, facts)
        asked[look] = site
        if wider is not None and taken.isdisjoint(set(wider.nodes).difference(site.nodes)):
            site = wider
            if look is not with_residual:
                taken.update(site.nodes)
    return site
