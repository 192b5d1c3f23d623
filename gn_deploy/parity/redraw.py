"""Scale and bias of every GroupNorm drawn anew, the same in two models: the 1 and 0 of fresh networks hide faults."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from gn_deploy.graph.passing import CASTS, NO_OPS, VIEW_OPS
from gn_deploy.parity.cases import Array
from gn_deploy.parity.pairing import Pair, pair
from gn_deploy.parity.subject import find_sites
from gn_deploy.spec import FLOAT_DTYPES

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.forms.base import GroupNormSite

_KINDS = ("scale", "bias")
_NORMS = frozenset(
    ("GroupNormalization", "InstanceNormalization", "LayerNormalization", "BatchNormalization", "GroupNorm")
)
_HANDED_ON = VIEW_OPS | NO_OPS | CASTS | {"Unsqueeze", "Squeeze", "Reshape", "Identity"}
_ROUNDS = 4  # a round takes back at least one site that could not be read back; what is left then is left out at once


@dataclass(frozen=True, slots=True)
class Redrawn:
    """Copies of both models, the sites that were drawn anew, and why others were not."""

    reference: "ir.Model"
    candidate: "ir.Model"
    sites: tuple[str, ...]
    left_out: dict[str, str]

    @property
    def notes(self) -> tuple[str, ...]:
        """How many sites were drawn anew, and of which not, those of one reason together."""
        reasons: dict[str, list[str]] = {}
        for site, why in self.left_out.items():
            reasons.setdefault(why, []).append(site)
        count = len(self.sites) + len(self.left_out)
        told = [f"scale and bias of {len(self.sites)} of {count} GroupNorms were drawn anew as well"]
        return (*told, *(f"not drawn anew, {', '.join(sites)}: {why}" for why, sites in reasons.items()))


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """Where a model holds a parameter: ``node`` reads it as input ``index``, perhaps through reshapes and casts."""

    node: "ir.Node"
    index: int
    value: "ir.Value"
    size: int


def redraw(reference: "ir.Model", candidate: "ir.Model") -> Redrawn:
    """Numbers near 1 and 0 that every float type holds exactly, equal for equal sites whatever either model's form.

    1. An initializer of one number per channel, or per group, is replaced by one of the site's own: parameters that
       several sites share, as exporters share the ones and zeros of fresh networks, come apart in both models alike.
    2. A candidate that holds none, because 1 and 0 were left away, is written anew in the form that it has.
    3. Each site is read back. Where the candidate's does not say what was drawn it stays as it was in both, unless it
       holds the parameter under the reference's name: then the difference is its own, and for the judgement.
    """
    left_out: dict[str, str] = {}
    for turn in range(_ROUNDS):
        a, b = reference.clone(), candidate.clone()
        found = pair(a, find_sites(a), b, find_sites(b))
        drawn: dict[str, dict[str, Array]] = {}
        own: set[str] = set()
        missing: list[tuple[str, str, dict[str, Array]]] = []
        for one in found.pairs:
            name = one.site.name
            if name in left_out:
                continue
            outcome = _drawn(one, a, b)
            if isinstance(outcome, str):
                left_out[name] = outcome
                continue
            drawn[name], named_alike, complete = outcome
            own |= {name} if named_alike else set()
            if not complete:
                missing.append((name, str(one.output.name), drawn[name]))
        for name, output, arrays in missing:
            if why := _written_anew(b, output, arrays):
                left_out[name] = why
        wrong = _read_back(a, b, drawn, own)
        wrong |= {name: left_out[name] for name, _, _ in missing if name in left_out}
        left_out |= wrong
        if not wrong or turn == _ROUNDS - 1:
            break
    if wrong:
        return Redrawn(reference, candidate, (), left_out)
    left_out |= {site.name: why for site, why in found.unpaired}
    return Redrawn(a, b, tuple(drawn), left_out)


def _drawn(one: Pair, a: "ir.Model", b: "ir.Model") -> "tuple[dict[str, Array], bool, bool] | str":
    """Puts new numbers into both models. What was drawn, whether both hold it under one name, and whether the candidate
    has a place for all of it; or why nothing was drawn."""
    spec = one.site.spec
    if any(p is not None and p.array is None for p in (one.site.scale, one.site.bias)):
        return "scale or bias is only known at run time"
    if spec.num_channels == 1:
        return "it has one channel"
    if any(node.graph is not a.graph for node in one.site.bare.nodes):
        return "it is inside a subgraph or a function"
    mine = _places(one.site.bare.nodes, spec.num_channels, spec.num_groups)
    if not mine:
        return "it has no scale and no bias, or they are not held as one number per channel"
    theirs = _namesakes(one, mine, b) | _places(one.region, spec.num_channels, spec.num_groups)
    rng = np.random.default_rng(zlib.crc32(one.site.name.encode()))
    arrays: dict[str, Array] = {}
    for kind in _KINDS:
        if kind not in mine:
            continue
        sizes = {place[kind].size for place in (mine, theirs) if kind in place}
        count = min(sizes)
        middle = 1.0 if kind == "scale" else 0.0
        few = (middle + 0.5 * rng.standard_normal(count)).astype(ml_dtypes.bfloat16).astype(np.float64)  # exact in all
        arrays[kind] = np.repeat(few, spec.num_channels // count)
    alike = all(kind in theirs and theirs[kind].value.name == mine[kind].value.name for kind in arrays)
    for places, model in ((mine, a), (theirs, b)):
        for kind, array in arrays.items():
            if kind in places:
                _put(places[kind], array[:: spec.num_channels // places[kind].size], model, f"{one.site.name}/{kind}")
    return arrays, alike, all(kind in theirs for kind in arrays)


def _places(nodes: "Sequence[ir.Node]", channels: int, groups: int) -> dict[str, _Place]:
    """Where scale and bias are held: by a Mul and an Add after the normalization, else by the normalization itself."""
    found: dict[str, tuple[int, _Place]] = {}
    for node in nodes:
        reads: list[tuple[str, int, int]] = []
        if node.op_type in _NORMS:
            reads = [("scale", 1, 0), ("bias", 2, 0)]
        elif node.op_type in ("Mul", "Add"):
            reads = [({"Mul": "scale", "Add": "bias"}[node.op_type], i, 1) for i in (0, 1)]
        for kind, index, rank in reads:
            place = _held(node, index) if index < len(node.inputs) else None
            grouped = node.op_type == "GroupNormalization" and place is not None and place.size == groups
            if place is None or not (place.size == channels or grouped):
                continue
            if kind not in found or rank > found[kind][0]:
                found[kind] = (rank, place)
    return {kind: place for kind, (_, place) in found.items()}


def _namesakes(one: Pair, mine: dict[str, _Place], model: "ir.Model") -> dict[str, _Place]:
    """The reference's own parameters, read once on the candidate's way to the output, whatever it does with them."""
    region = set(one.region)
    found = {}
    for kind, place in mine.items():
        value = model.graph.initializers.get(str(place.value.name))
        uses = [use for use in value.uses() if use.node in region] if value is not None else []
        tensor = None if value is None else value.const_value
        same = tensor is not None and tensor.shape == place.value.const_value.shape  # type: ignore[union-attr]
        if value is not None and same and len(uses) == 1 and not value.is_graph_input():
            found[kind] = _Place(uses[0].node, uses[0].idx, value, place.size)
    return found


def _held(node: "ir.Node", index: int) -> _Place | None:
    """The initializer behind an input, with only this reader on the way."""
    value = node.inputs[index]
    while value is not None:
        producer = value.producer()
        if producer is None:
            tensor = value.const_value
            known = tensor is not None and value.is_initializer() and not value.is_graph_input()
            if not known or str(tensor.dtype.numpy()) not in FLOAT_DTYPES:  # type: ignore[union-attr]
                return None
            return _Place(node, index, value, int(np.prod(tensor.shape.numpy())))  # type: ignore[union-attr]
        if producer.op_type not in _HANDED_ON or len(value.uses()) != 1:
            return None
        node, index, value = producer, 0, producer.inputs[0]
    return None


def _put(place: _Place, array: Array, model: "ir.Model", name: str) -> None:
    """An initializer of the site's own, in the type and shape of the one that it takes the place of."""
    import onnx_ir as ir

    tensor = place.value.const_value
    assert tensor is not None, "places hold constants"
    fresh, count = name, 1
    while fresh in model.graph.initializers:
        count += 1
        fresh = f"{name}_{count}"
    numbers = array.reshape(tensor.shape.numpy()).astype(tensor.dtype.numpy())
    held = ir.tensor(numbers, dtype=tensor.dtype, name=fresh)
    value = ir.Value(name=fresh, shape=ir.Shape(numbers.shape), type=ir.TensorType(tensor.dtype), const_value=held)
    model.graph.register_initializer(value)
    place.node.replace_input_with(place.index, value)


def _written_anew(model: "ir.Model", output: str, arrays: dict[str, Array]) -> str:
    """Writes the site with this output in its own form with these parameters; why not, when it cannot be."""
    from gn_deploy.forms import FORMS
    from gn_deploy.forms.base import Parameter
    from gn_deploy.graph.splice import Names
    from gn_deploy.passes.rewrite import rewrite
    from gn_deploy.sites import opset_of

    site = _by_output(find_sites(model), output)
    if site is None:
        return "the candidate has no place for them, and is not recognised as a GroupNorm there"
    form, spec = FORMS.require(site.form), site.spec
    opset = opset_of(model)
    if not (legal := form.legal(spec, opset)):
        return f"the candidate has no place for them, and {site.form} cannot be written anew: {legal.reason}"
    scale, bias = (Parameter(array=arrays[k].astype(spec.dtype)) if k in arrays else None for k in _KINDS)
    anew = replace(site, scale=scale or site.scale, bias=bias or site.bias)
    rewrite(anew, form, Names(model), opset, 2, model)
    model.graph.sort()
    return ""


def _read_back(a: "ir.Model", b: "ir.Model", drawn: dict[str, dict[str, Array]], own: set[str]) -> dict[str, str]:
    """Sites of which either model does not say what was drawn -> why they are left as they were."""
    sites = find_sites(a)
    found = {one.site.name: one for one in pair(a, sites, b, find_sites(b)).pairs}
    theirs = find_sites(b)
    wrong = {}
    for name, arrays in drawn.items():
        one = found.get(name)
        if one is None or not _says(one.site, arrays):
            wrong[name] = "its parameters cannot be put back one to one"
            continue
        other = _by_output(theirs, str(one.output.name))
        if name not in own and (other is None or not _says(other, arrays)):
            wrong[name] = "the candidate's parameters cannot be put back one to one"
    return wrong


def _says(site: "GroupNormSite", arrays: dict[str, Array]) -> bool:
    held: dict[str, Any] = {"scale": site.scale, "bias": site.bias}
    return all(
        held[kind] is not None and held[kind].array is not None and np.array_equal(held[kind].array, array)
        for kind, array in arrays.items()
    )


def _by_output(sites: "Sequence[GroupNormSite]", output: str) -> "GroupNormSite | None":
    """What the form read of the site that, with or without what is around it, ends in the value of this name."""
    return next((site.bare for site in sites if any(layer.output.name == output for layer in site.layers)), None)
