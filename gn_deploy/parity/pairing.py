"""Which values of a candidate stand for the input and output of each GroupNorm of the reference."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
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
_ACTIVATING = frozenset(("Relu", "Sigmoid", "Mul"))
"""Ops that a ReLU or a SiLU is made of."""


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A site of the reference, which is the truth, and the values between which the candidate computes it."""

    site: "GroupNormSite"
    spec: GroupNormSpec
    """What ``output`` must be of ``input``: the reference's spec, its activation only if ``output`` includes it."""
    input: "ir.Value"
    output: "ir.Value"
    form: str
    """How the candidate writes it; "" when it is not recognised as a GroupNorm there."""
    how: str
    """By what they were paired."""
    differs: str = ""
    """What the candidate's GroupNorm is told to compute otherwise, in words."""


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

    def take(site: "GroupNormSite", other: "GroupNormSite", how: str) -> None:
        free.remove(other)
        found[site] = _with_site(site, other, how)

    for site in reference_sites:
        for other in free:
            if other.input.name == site.input.name and _ends(site) & _ends(other):
                take(site, other, "value names")
                break
    values = _values(candidate)
    for site in reference_sites:
        if site not in found and (moved := _among_moves(site, values, free)):
            found[site], other = moved
            free.remove(other)
    if (whole := _whole_graph(reference, candidate, reference_sites)) and whole.site not in found:
        same = [s for s in free if s.input is whole.input and s.final_output is whole.output]
        found[whole.site] = replace(whole, form=same[0].form, differs=_differs(whole.site, same[0])) if same else whole
        free = [s for s in free if s not in same]
    for site, other in _by_module([s for s in reference_sites if s not in found], free):
        take(site, other, "module path")
    for site in reference_sites:
        if site not in found and (named := _by_names(site, values)):
            found[site] = named
            free = [s for s in free if s.output is not named.output and s.final_output is not named.output]
    left = [s for s in reference_sites if s not in found]
    if len(left) == len(free) and all(map(_alike, left, free)):
        for site, other in zip(left, list(free), strict=True):
            take(site, other, "order")
    reason = f"the candidate has no values of these names and {len(free)} other GroupNorm(s) for {len(left)} left over"
    pairs = tuple(found[s] for s in reference_sites if s in found)
    return Pairing(pairs, tuple((s, reason) for s in reference_sites if s not in found))


def region(start: "ir.Value", end: "ir.Value") -> "list[ir.Node] | None":
    """The nodes that compute ``end`` without looking behind ``start``; None when ``end`` does not depend on it."""
    nodes: dict[ir.Node, None] = {}
    met = False
    stack = [end]
    while stack:
        value = stack.pop()
        if value is start:
            met = True
            continue
        node = value.producer()
        if node is not None and node not in nodes:
            nodes[node] = None
            stack += [v for v in node.inputs if v is not None]
    return list(nodes) if met else None


def _ends(site: "GroupNormSite") -> set[str | None]:
    return {site.output.name, site.final_output.name}


def _with_site(site: "GroupNormSite", other: "GroupNormSite", how: str) -> Pair:
    differs = _differs(site, other)
    same = site.spec.activation is other.spec.activation
    if same or site.final_output.name == other.final_output.name:  # it is not recognised there, or is another one
        return Pair(site, site.spec, other.input, other.final_output, other.form, how, differs)
    spec = replace(site.spec, activation=Activation.NONE)
    return Pair(site, spec, other.input, other.output, other.form, how, differs)


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
    site = sites[0]
    if site.input not in a.graph.inputs or site.final_output is not a.graph.outputs[0]:
        return None
    at = list(a.graph.inputs).index(site.input)
    if at >= len(b.graph.inputs):
        return None
    return Pair(site, site.spec, b.graph.inputs[at], b.graph.outputs[0], "", "graph input and output")


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
    named = _by_names(site, values)
    nodes = set(region(named.input, named.output) or ()) if named else set()
    inner = [other for other in free if nodes.issuperset(other.nodes)]
    allowed = _MOVES | _ACTIVATING if named and named.spec.activation is not Activation.NONE else _MOVES
    if named is None or len(inner) != 1 or any(n.op_type not in allowed for n in nodes.difference(inner[0].nodes)):
        return None
    return named, inner[0]


def _by_names(site: "GroupNormSite", values: "dict[str, ir.Value]") -> Pair | None:
    start = values.get(site.input.name or "")
    for end_of, spec in (
        (site.final_output, site.spec),
        (site.output, replace(site.spec, activation=Activation.NONE)),
    ):
        end = values.get(end_of.name or "")
        if start is None or end is None:
            continue
        nodes = region(start, end)
        if nodes and not any(node.op_type in _NEVER_INSIDE for node in nodes):
            return Pair(site, spec, start, end, "", "value names")
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
