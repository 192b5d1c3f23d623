"""What a form is: one way of writing Group Normalization as ONNX nodes, read and written by the same file."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from gn_deploy.affine import Affine, follow, source_dtype
from gn_deploy.affine import Parameter as Parameter
from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.errors import InputError
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.provenance import module_path, source_line
from gn_deploy.graph.splice import Builder
from gn_deploy.spec import GroupNormSpec
from gn_deploy.views import GroupView

DTYPES = {
    "float32": ir.DataType.FLOAT,
    "float16": ir.DataType.FLOAT16,
    "bfloat16": ir.DataType.BFLOAT16,
    "float64": ir.DataType.DOUBLE,
}
_NAMES = {onnx: name for name, onnx in DTYPES.items()}
_COMPLETE = (2, True)  # scale and bias, in the type of the input: no view can have more
_NO_EPSILON = "the file stores epsilon 0, so a constant group divides by zero; paddle2onnx loses the model's epsilon"


@dataclass(frozen=True, slots=True, eq=False)
class GroupNormSite:
    """A GroupNormSpec at a place in a graph.

    1. ``nodes`` are exactly the nodes that compute what ``spec`` says, from ``input`` to ``output``.
    2. ``scale`` and ``bias`` are None when absent, that is 1 and 0.
    3. What stands around the normalization (activation, residual, modulation, casts, transposes) is seen one thing at
       a time: ``inner`` is the same site without the outermost, so a form takes the layer it can write.
    """

    spec: GroupNormSpec
    form: str
    name: str
    input: ir.Value
    output: ir.Value
    scale: Parameter | None
    bias: Parameter | None
    nodes: tuple[ir.Node, ...]
    operands: Mapping[str, ir.Value] = field(default_factory=dict)
    """The tensors that come in around it, by their names in ``reference.group_norm``: ``residual`` of x's shape or
    (N, C, 1, ...), ``modulation_scale`` and ``modulation_shift`` (N, C, 1, ...), N perhaps 1; channels last where x is.
    A fused node may take (N, C) instead, and a ``residual_bias`` (C,) that is added with the residual."""
    sum: ir.Value | None = None
    """x + residual, where others read it too."""
    flattened: bool = False
    """``input`` has more axes than ``spec.rank``: (N, C, H, W) is normalized as (N, C, H W), ``output``'s shape."""
    inner: "GroupNormSite | None" = None
    """The site without the outermost thing around it; None for what a form reads at once."""
    module: str = ""
    """Path of the module in the source model, from the exporter's metadata."""
    source: str = ""
    """Source line, from the exporter's metadata."""
    notes: tuple[str, ...] = ()
    """Why writing it anew is better even in the same form, for example that the file takes a one-pass variance."""
    invalid: str = ""
    """Why ONNX does not allow the node, though its meaning can be guessed; such a site is shown, never rewritten."""
    doubt: str = ""
    """What ONNX allows, though a mistake of the tool that wrote the file explains it better; shown, never acted on."""
    graph: ir.Graph | ir.Function | None = field(default=None, repr=False)
    opset: int = 0
    """Version of the ONNX domain where it stands: the model's, or its function's."""

    @property
    def layers(self) -> "Iterator[GroupNormSite]":
        """This site, then the same without one thing around it after the other, to what the form read."""
        site: GroupNormSite | None = self
        while site is not None:
            yield site
            site = site.inner

    @property
    def bare(self) -> "GroupNormSite":
        """The innermost layer: what the form read, nothing around it."""
        return [*self.layers][-1]

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader should know."""
        told = (*self.notes, self.doubt, "" if self.spec.epsilon else _NO_EPSILON)
        return tuple(filter(None, told))

    @property
    def runtime_inputs(self) -> tuple[ir.Value, ...]:
        """What it reads beside x that is only known at run time: operands, scale, bias."""
        parameters = [p.value for p in (self.scale, self.bias) if p and p.array is None and p.value is not None]
        return (*self.operands.values(), *parameters)


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A place that looked like a form and is left alone: which node, which form, how far it got, what stopped it."""

    node: str
    form: str
    reason: str
    progress: int = 0
    """Pattern nodes matched before it stopped."""


def named(node: ir.Node) -> str:
    """What a node is called where people read it: its name, else its first output's."""
    return node.name or str(node.outputs[0].name)


class Form(Protocol):
    """One file of this folder.

    1. ``read`` never guesses: what it cannot prove is a NearMiss with the reason, what it does not know is None.
    2. ``write`` adds nodes through the builder and returns the value that replaces ``site.output``.
    3. ``legal`` says whether ONNX allows this form for the spec at an opset; runtimes' rules are in ``targets``.
    4. ``fuses`` names what of ``spec.around`` its own nodes compute; ``around.write`` puts nodes of their own around
       for the rest, so ``write`` and ``legal`` never see it.
    """

    name: str
    fuses: frozenset[str]
    roots: Sequence[str]
    """Op types ("InstanceNormalization") at which ``read`` may be asked."""

    def read(self, node: ir.Node, facts: Facts) -> GroupNormSite | NearMiss | None: ...

    def write(self, site: GroupNormSite, builder: Builder) -> ir.Value: ...

    def legal(self, spec: GroupNormSpec, opset: int) -> Decision: ...

    def min_opset(self, spec: GroupNormSpec) -> int: ...


class ReadOnly:
    """A form that is never written; ``why`` says why."""

    fuses: frozenset[str] = frozenset()
    why: str

    def write(self, site: GroupNormSite, builder: Builder) -> ir.Value:
        raise NotImplementedError(self.why)

    def legal(self, spec: GroupNormSpec, opset: int) -> Decision:
        return Rejected(self.why)

    def min_opset(self, spec: GroupNormSpec) -> int:
        return 1


Applied = tuple[Parameter | None, Parameter | None]
"""Scale and bias that the normalizing op itself applies."""


def complete(
    form: str,
    node: ir.Node,
    views: Sequence[GroupView] | Rejected,
    facts: Facts,
    *,
    epsilon: float,
    stash: str | None = None,
    nodes: Sequence[ir.Node] = (),
    applied: Callable[[GroupView], Applied | Rejected] = lambda _view: (None, None),
    closed: bool = False,
    notes: tuple[str, ...] = (),
    invalid: str = "",
    progress: int = 1,
) -> GroupNormSite | NearMiss:
    """The site whose normalized value is the output of ``node``: the view with the most complete affine, nearest first.

    ``applied`` tells the scale and bias that ``node`` itself applies; ``closed`` that what follows is not looked at.
    """

    def miss(reason: str) -> NearMiss:
        return NearMiss(named(node), form, reason, progress)

    if isinstance(views, Rejected):
        return miss(views.reason)
    best: tuple[GroupView, Affine] | None = None
    why = "the normalized value does not come back to the shape and type of the input"
    for view in views:
        own = applied(view)
        if isinstance(own, Rejected):
            why = own.reason
            continue
        affine = Affine(node.outputs[0], (), *own) if closed else follow(node.outputs[0], view, facts, *own)
        if affine is not None and (best is None or affine.completeness > best[1].completeness):
            best = view, affine
        if best is not None and best[1].completeness == _COMPLETE:
            break
    if best is None:
        return miss(why)
    view, affine = best
    if view.source.is_initializer() and not view.source.is_graph_input():
        return miss(f"'{view.source.name}' is a constant: weights are standardized, not activations")
    known = source_dtype(view, node.outputs[0], facts)
    dtype = _NAMES.get(known or _parameter_dtype(affine) or ir.DataType.UNDEFINED)
    if dtype is None:
        return miss(f"the type of '{view.source.name}' is not known to be a floating-point type")
    try:
        spec = GroupNormSpec(
            num_groups=view.num_groups,
            num_channels=view.num_channels,
            epsilon=shortest(epsilon),
            rank=len(view.shape) or None,
            dtype=dtype,
            stash_dtype=stash or ("float64" if dtype == "float64" else "float32"),
            channel_axis=view.channel_axis,
        )
    except InputError as error:
        return miss(error.message)
    found = dict.fromkeys([*view.nodes, *nodes, node, *affine.nodes])
    return GroupNormSite(
        spec=spec,
        form=form,
        name=named(node),
        input=view.source,
        output=affine.output,
        scale=affine.scale,
        bias=affine.bias,
        nodes=tuple(found),
        flattened=0 < len(view.shape) != facts.rank(view.source),
        module=module_path(node),
        source=source_line(node),
        notes=notes,
        invalid=invalid,
        graph=node.graph,
        opset=facts.opset,
    )


def shortest(epsilon: float) -> float:
    """The decimal a float32 stands for (1e-05, not 9.999999747378752e-06); writing it gives the same float32 back."""
    single = np.float32(epsilon)
    return float(str(single)) if float(single) == epsilon else epsilon


def dtype_name(dtype: ir.DataType | None) -> str | None:
    return None if dtype is None else _NAMES.get(dtype)


def per_group(array: NDArray[np.generic], view: GroupView) -> Parameter:
    """One number per group, repeated for the group's channels."""
    return Parameter(np.repeat(array.reshape(-1), view.num_channels // view.num_groups))


def known_rank(spec: GroupNormSpec) -> Decision:
    """What a form that needs the rank says last."""
    return Rejected("the rank of the input is not known") if spec.rank is None else Accepted()


def _parameter_dtype(affine: Affine) -> ir.DataType | None:
    held = affine.scale or affine.bias
    return None if held is None or held.array is None else ir.DataType.from_numpy(held.array.dtype)
