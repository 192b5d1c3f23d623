"""Which values of a candidate stand for the input and output of each GroupNorm of the reference."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from gn_deploy.spec import HALF_DTYPES, GroupNormSpec

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.forms.base import GroupNormSite

_NEVER_INSIDE = frozenset(
    ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "Attention", "Einsum", "ConvInteger")
)
"""Ops that no spelling of a GroupNorm needs: with one between two values, their equal names are a coincidence."""
_SAME = 2.0**-7
"""Relative difference that storing a number in bfloat16, the coarsest type, can make."""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A site of the reference, which is the truth, and the values between which the candidate computes it."""

    site: "GroupNormSite"
    spec: GroupNormSpec
    """What ``output`` must be of ``input`` and ``operands``: the spec of a layer of the reference's site."""
    input: "ir.Value"
    output: "ir.Value"
    form: str
    """How the candidate writes it; "" when it is not recognised as a GroupNorm there."""
    how: str
    """By what they were paired."""
    differs: str = ""
    """What the candidate's GroupNorm is told to compute otherwise, in words."""
    operands: "Mapping[str, ir.Value]" = field(default_factory=dict)
    """The candidate's residual and modulation, by the names of ``GroupNormSite.operands``."""
    half: str = ""
    """The half-precision type that the GroupNorm recognised there is written in, whatever goes in and comes out."""

    @property
    def region(self) -> "list[ir.Node]":
        """The candidate's nodes between these values; none when ``output`` does not depend on ``input``."""
        return _region([self.input, *self.operands.values()], self.output)


@dataclass(frozen=True, slots=True)
class Pairing:
    pairs: tuple[Pair, ...]
    unpaired: tuple[tuple["GroupNormSite", str], ...]
    """Sites without a counterpart, each with the reason."""


def pair(
    reference: "ir.Model",
    reference_sites: "Sequence[GroupNormSite]",
    candidate: "ir.Model",
    candidate_sites: "Sequence[GroupNormSite]",
) -> Pairing:
    """Pairs by value names, else as the whole graph, else by module path, else by order.

    By names as much as possible is judged at once: what the reference has around a norm, the candidate must have. A
    region of the candidate need not be recognised as a GroupNorm: between values of the right names it is judged all
    the same, because a wrong GroupNorm (unbiased variance, permuted groups) may well be unrecognisable.
    """
    free = list(candidate_sites)
    found: dict[GroupNormSite, Pair] = {}

    def take(site: "GroupNormSite", other: "GroupNormSite", pair: Pair) -> None:
        free.remove(other)
        found[site] = pair

    values = _values(candidate)
    for site in reference_sites:
        if there := _at_names(site, free, values):
            take(site, there[1], there[0])
    if (whole := _whole_graph(reference, candidate, reference_sites)) and whole.site not in found:
        same_ends = [s for s in free if any(la.input is whole.input and la.output is whole.output for la in s.layers)]
        for other in same_ends[:1]:
            whole = replace(whole, form=other.form, differs=_differs(whole.site, other), half=_half(other))
        found[whole.site] = whole
        free = [s for s in free if s not in same_ends]
    for site, other in _by_module([s for s in reference_sites if s not in found], free):
        take(site, other, _with_site(site, other, "module path"))
    for site in reference_sites:
        if site not in found and (named := _by_names(site, values)):
            found[site] = named
            free = [s for s in free if all(layer.output is not named.output for layer in s.layers)]
    left = [s for s in reference_sites if s not in found]
    if len(left) == len(free) and all(map(_alike, left, free)):
        for site, other in zip(left, list(free), strict=True):
            take(site, other, _with_site(site, other, "order"))
    reason = f"the candidate has no values of these names and {len(free)} other GroupNorm(s) for {len(left)} left over"
    pairs = tuple(found[s] for s in reference_sites if s in found)
    return Pairing(pairs, tuple((s, reason) for s in reference_sites if s not in found))


def _region(starts: "Sequence[ir.Value]", end: "ir.Value") -> "list[ir.Node]":
    """The nodes that compute ``end`` without looking behind ``starts``; none when it does not depend on the first."""
    nodes: dict[ir.Node, None] = {}
    met = False
    stack = [end]
    while stack:
        value = stack.pop()
        if value in starts:
            met = met or value is starts[0]
            continue
        node = value.producer()
        if node is not None and node not in nodes:
            nodes[node] = None
            stack += [v for v in node.inputs if v is not None]
    return list(nodes) if met else []


def _layers(site: "GroupNormSite") -> "list[GroupNormSite]":
    """What may be judged of a site, best first: as much as possible at once, but on the sum with a residual, which is
    what the statistics see, rather than on its addends.
    """
    return sorted(site.layers, key=lambda layer: layer.spec.residual)


def _at_names(
    site: "GroupNormSite", free: "Sequence[GroupNormSite]", values: "Mapping[str, ir.Value]"
) -> "tuple[Pair, GroupNormSite] | None":
    """Between values of the right names a GroupNorm that says the same, else one and whatever else stands there.

    All of it is judged: with other channels in its groups, or another activation, a right GroupNorm is a wrong one.
    """
    for layer in _layers(site):
        for other in free:
            for theirs in other.layers:
                if _ends(layer) == _ends(theirs):
                    return _paired(site, layer, theirs, "value names"), other
        pair = _between(site, layer, values)
        region = set(pair.region if pair else ())
        inner = [other for other in free if region.issuperset(other.bare.nodes)]
        if pair is not None and len(inner) == 1:
            missing = sorted(_computed(layer) - inner[0].spec.around)
            differs = [_differs(site, inner[0])] + [f"no {name} is recognised around it" for name in missing]
            return replace(pair, differs=" and ".join(filter(None, differs)), half=_half(inner[0])), inner[0]
    return None


def _ends(layer: "GroupNormSite") -> "tuple[str | None, str | None, dict[str, str | None]]":
    return layer.input.name, layer.output.name, {name: value.name for name, value in layer.operands.items()}


def _paired(site: "GroupNormSite", layer: "GroupNormSite", theirs: "GroupNormSite", how: str) -> Pair:
    differs, half = _differs(site, theirs), _half(theirs)
    return Pair(site, layer.spec, theirs.input, theirs.output, theirs.form, how, differs, theirs.operands, half)


def _half(site: "GroupNormSite") -> str:
    dtype = site.bare.spec.dtype
    return dtype if dtype in HALF_DTYPES else ""


def _with_site(site: "GroupNormSite", other: "GroupNormSite", how: str) -> Pair:
    """By the widest layer that both have; without one by what their forms read, whatever that computes."""
    for layer in _layers(site):
        for theirs in other.layers:
            if _computed(layer) == _computed(theirs):
                return _paired(site, layer, theirs, how)
    turned = replace(site.bare, spec=replace(site.bare.spec, channel_axis=other.bare.spec.channel_axis))
    return _paired(site, turned, other.bare, how)


def _computed(layer: "GroupNormSite") -> frozenset[str]:
    return layer.spec.around - {"wide_affine"}  # what is rounded when is the candidate's own choice


def _differs(site: "GroupNormSite", other: "GroupNormSite") -> str:
    """Such as "epsilon is 0.001, the reference has 1e-05"; empty when the two say the same as far as is known."""
    told = [
        f"{name} is {theirs:g}, the reference has {ours:g}"
        for name, ours, theirs in (
            ("num_groups", site.spec.num_groups, other.spec.num_groups),
            ("epsilon", site.spec.epsilon, other.spec.epsilon),
        )
        if not math.isclose(ours, theirs, rel_tol=_SAME)
    ]
    for name, mine, yours in (("scale", site.scale, other.scale), ("bias", site.bias, other.bias)):
        if mine is None or yours is None or mine.array is None or yours.array is None:
            continue  # one is absent, which means ones or zeros, or only known at run time
        a, b = (np.asarray(p.array, np.float64).ravel() for p in (mine, yours))
        if a.shape == b.shape and not np.allclose(a, b, rtol=_SAME, equal_nan=True):
            told.append(f"{name} holds other numbers")
    return " and ".join(told)


def _whole_graph(a: "ir.Model", b: "ir.Model", sites: "Sequence[GroupNormSite]") -> Pair | None:
    """For models that are one GroupNorm and nothing else: names do not matter then."""
    if len(sites) != 1 or len(a.graph.outputs) != 1 or len(b.graph.outputs) != 1:
        return None
    site, inputs = sites[0], list(a.graph.inputs)
    for layer in site.layers:
        read = [layer.input, *layer.operands.values()]
        at = [inputs.index(v) for v in read if v in inputs]
        if layer.output is a.graph.outputs[0] and len(at) == len(read) and max(at) < len(b.graph.inputs):
            start, *others = (b.graph.inputs[i] for i in at)
            operands = dict(zip(layer.operands, others, strict=True))
            how = "graph input and output"
            return Pair(site, layer.spec, start, b.graph.outputs[0], "", how, operands=operands)
    return None


def _by_module(
    sites: "Sequence[GroupNormSite]", others: "Sequence[GroupNormSite]"
) -> "Iterator[tuple[GroupNormSite, GroupNormSite]]":
    """Sites of one module, called equally often in both models, in order."""
    counts, other_counts = Counter(s.module for s in sites), Counter(s.module for s in others)
    for module, count in counts.items():
        if module and other_counts[module] == count:
            yield from zip(
                (s for s in sites if s.module == module), [o for o in others if o.module == module], strict=True
            )


def _by_names(site: "GroupNormSite", values: "Mapping[str, ir.Value]") -> Pair | None:
    return next((pair for layer in _layers(site) if (pair := _between(site, layer, values))), None)


def _between(site: "GroupNormSite", layer: "GroupNormSite", values: "Mapping[str, ir.Value]") -> Pair | None:
    """What the candidate has between values named like those of ``layer``, if that may be one GroupNorm."""
    start, end, *others = (values.get(v.name or "") for v in (layer.input, layer.output, *layer.operands.values()))
    if start is None or end is None or None in others:
        return None
    operands = {name: value for name, value in zip(layer.operands, others, strict=True) if value is not None}
    pair = Pair(site, layer.spec, start, end, "", "value names", operands=operands)
    region = pair.region
    return pair if region and not any(node.op_type in _NEVER_INSIDE for node in region) else None


def _values(model: "ir.Model") -> "dict[str, ir.Value]":
    """Named values of the main graph and its subgraphs; a name that means two things means nothing."""
    found: dict[str, ir.Value] = {}
    twice: set[str] = set()
    for graph in model.graphs():
        for value in [*graph.inputs, *(v for node in graph for v in node.outputs)]:
            if value.name in found:
                twice.add(value.name)
            if value.name:
                found[value.name] = value
    return {name: value for name, value in found.items() if name not in twice}


def _alike(site: "GroupNormSite", other: "GroupNormSite") -> bool:
    ranks = {site.spec.rank, other.spec.rank} - {None}
    return site.spec.num_channels == other.spec.num_channels and len(ranks) < 2
