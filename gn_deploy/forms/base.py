"""What a form is: one way of writing Group Normalization as ONNX nodes, read and written by the same file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from gn_deploy.decision import Decision
from gn_deploy.spec import GroupNormSpec

if TYPE_CHECKING:
    import onnx_ir as ir

    from gn_deploy.graph.facts import Facts
    from gn_deploy.graph.splice import Builder


@dataclass(frozen=True, slots=True)
class Parameter:
    """A scale or a bias as the graph holds it: a known array, a value of the graph, or both.

    ``array`` is (C,) in the graph's dtype, already folded, None when only known at run time.
    ``value`` is the graph's own tensor holding it, None when it had to be computed.
    ``per_group`` is True when ``value`` has one number per group (ONNX GroupNormalization-18).
    """

    array: NDArray[np.generic] | None = None
    value: "ir.Value | None" = None
    per_group: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class GroupNormSite:
    """A GroupNormSpec at a place in a graph.

    1. ``nodes`` are exactly the nodes that compute the normalization, in graph order; ``output`` is the last one's.
    2. ``epilogue`` are the activation nodes that follow, when ``spec.activation`` says so; they are not in ``nodes``.
    3. ``scale`` and ``bias`` are None when absent, that is 1 and 0.
    """

    spec: GroupNormSpec
    form: str
    name: str
    input: "ir.Value"
    output: "ir.Value"
    scale: Parameter | None
    bias: Parameter | None
    nodes: tuple["ir.Node", ...]
    epilogue: tuple["ir.Node", ...] = ()
    module: str = ""
    """Path of the module in the source model, from the exporter's metadata."""
    source: str = ""
    """Source line, from the exporter's metadata."""
    notes: tuple[str, ...] = ()
    """What a reader should know, for example that the file computes a one-pass variance."""
    graph: "ir.Graph | ir.Function | None" = field(default=None, repr=False)

    @property
    def final_output(self) -> "ir.Value":
        """The value after the activation."""
        return self.epilogue[-1].outputs[0] if self.epilogue else self.output


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A place that looked like a form and is left alone: which node, which form, how far it got, what stopped it."""

    node: str
    form: str
    reason: str
    progress: int = 0
    """Pattern nodes matched before it stopped."""


class Form(Protocol):
    """One file of this folder.

    1. ``read`` never guesses: what it cannot prove is a NearMiss with the reason, what it does not know is None.
    2. ``write`` adds nodes through the builder and returns the value that replaces ``site.output``.
    3. ``legal`` says whether ONNX allows this form for the spec at an opset; runtimes' rules are in ``targets``.
    """

    name: str
    roots: Sequence[str]
    """Op types ("Add", "GroupNormalization") at which ``read`` may be asked."""

    def read(self, node: "ir.Node", facts: "Facts") -> GroupNormSite | NearMiss | None: ...

    def write(self, site: GroupNormSite, builder: "Builder") -> "ir.Value": ...

    def legal(self, spec: GroupNormSpec, opset: int) -> Decision: ...

    def min_opset(self, spec: GroupNormSpec) -> int: ...
