"""Which values of a candidate stand for the input and output of each GroupNorm of the reference."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from gn_deploy.spec import Activation, GroupNormSpec

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.forms.base import GroupNormSite

_NEVER_INSIDE = frozenset(
    ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "Attention", "Einsum", "ConvInteger")
)
"""Ops that no spelling of a GroupNorm needs: with one between two values, their equal names are a coincidence."""
_SAME = 2.0**-7
"""Relative difference that storing a number in bfloat16, the coarsest type, can make."""


_MOVES = frozenset(
    "Cast Concat Expand Gather GatherND Identity Reshape Shape Slice Split Squeeze Transpose Unsqueeze".split()
)
"""Ops that put numbers elsewhere and change none."""


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

    A region of the candidate need not be recognised as a GroupNorm: between values of the right names it is judged
    all the same, because a wrong GroupNorm (unbiased variance, permuted groups) may well be unrecognisable.
    """
    free = list(candidate_sites)
    found: dict[GroupNormSite, Pair] = {}

    def take(site: "GroupNormSite", other: "GroupNormSite", pair: Pair) -> None:
        free.remove(other)
        found[site] = pair

    for site in reference_sites:
        for other in free:
            if same := _same_names(site, other):
                take(site, other, same)
                break
    values = _values(candidate)
    for site in reference_sites:
        if site not in found and (moved := _among_moves(site, values, free)):
            take(site, moved[1], moved[0])
    if (whole := _whole_graph(reference, candidate, reference_sites)) and whole.site not in found:
        same_ends = [s for s in free if any(la.input is whole.input and la.output is whole.output for la in s.layers)]
        for other in same_ends[:1]:
            whole = replace(whole, form=other.form, differs=_differs(whole.site, other))
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


def _same_names(site: "GroupNormSite", other: "GroupNormSite") -> Pair | None:
    for layer in _layers(site):
        for theirs in other.layers:
            if _ends(layer) == _ends(theirs):
                return _paired(site, layer, theirs, "value names")
    return None


def _ends(layer: "GroupNormSite") -> "tuple[str | None, str | None, dict[str, str | None]]":
    return layer.input.name, layer.output.name, {name: value.name for name, value in layer.operands.items()}


def _paired(site: "GroupNormSite", layer: "GroupNormSite", theirs: "GroupNormSite", how: str) -> Pair:
    differs = _differs(site, theirs)
    return Pair(site, layer.spec, theirs.input, theirs.output, theirs.form, how, differs, theirs.operands)


def _with_site(site: "GroupNormSite", other: "GroupNormSite", how: str) -> Pair:
    """By the widest layer that both have; without one by what their forms read, whatever that computes."""
    for layer in _layers(site):
        for theirs in other.layers:
            if _computed(layer) == _computed(theirs):
                return _paired(site, layer, theirs, how)
    return _paired(site, site.bare, other.bare, how)


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


def _among_moves(
    site: "GroupNormSite", values: "dict[str, ir.Value]", free: "Sequence[GroupNormSite]"
) -> "tuple[Pair, GroupNormSite] | None":
    """Between values of the right names one GroupNorm and nothing else but nodes that move numbers about.

    They belong to what is judged: with other channels in its groups a right GroupNorm is a wrong one.
    """
    from gn_deploy.around.operators import POINTWISE

    named = _by_names(site, values)
    nodes = set(named.region if named else ())
    inner = [other for other in free if nodes.issuperset(other.bare.nodes)]
    allowed = _MOVES | POINTWISE if named and named.spec.activation is not Activation.NONE else _MOVES
    if named is None or len(inner) != 1 or any(n.op_type not in allowed for n in nodes.difference(inner[0].bare.nodes)):
        return None
    return named, inner[0]


def _by_names(site: "GroupNormSite", values: "dict[str, ir.Value]") -> Pair | None:
    for layer in _layers(site):
        start, end, *others = (values.get(v.name or "") for v in (layer.input, layer.output, *layer.operands.values()))
        if start is None or end is None or None in others:
            continue
        operands = {name: value for name, value in zip(layer.operands, others, strict=True) if value is not None}
        pair = Pair(site, layer.spec, start, end, "", "value names", operands=operands)
        if pair.region and not any(node.op_type in _NEVER_INSIDE for node in pair.region):
            return pair
    return None


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
