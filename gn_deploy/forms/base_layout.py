"""Proof that matched nodes compute one number per group and apply it to that group, whatever shapes they take."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from gn_deploy.affine import Parameter, per_channel, source_dtype
from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.graph.derive import REDUCTIONS
from gn_deploy.graph.dims import ONE, Dim, Shape, product, spelled
from gn_deploy.graph.facts import Facts
from gn_deploy.graph.fold import integer
from gn_deploy.graph.passing import CASTS, handed_on, holds, narrows
from gn_deploy.views import GroupView, groups_of

SPREADING = "Expand Tile Concat Gather"
"""Ops that repeat elements; what they repeat is proved here."""
_BINARY = frozenset({"Add", "Div", "Equal", "Max", "Mul", "Pow", "Sub", "Where"})


@dataclass(frozen=True, slots=True)
class Lay:
    """How a value is laid out: an element for each one of x, or each (sample, group) a number of times in a row.

    ``repeat`` is that number, None for the elements of x in their order.
    """

    shape: Shape
    repeat: Dim | None


@dataclass
class Layout:
    """Every value of a match, followed from ``tensor`` (the elements of the source of ``view``, in some shape)."""

    tensor: ir.Value
    view: GroupView
    nodes: Iterable[ir.Node]
    facts: Facts
    parameters: tuple[ir.Value | None, ...] = ()
    """What may come in: a number per channel each."""
    applied: dict[ir.Value, Parameter] = field(default_factory=dict)
    """The parameters, as met."""
    merged: bool = False
    """Samples of a batch of fixed size may be merged with the groups."""
    rounded: bool = False
    """A Cast has rounded on the way, to no less than the type of the source."""

    def __post_init__(self) -> None:
        self._nodes = frozenset(self.nodes)
        self._known: dict[ir.Value, Lay | Rejected | None] = {}

    def proves(self, result: ir.Value) -> Decision:
        """Whether ``result`` has an element for each of the source, each from the statistics of its own group."""
        found = self.lay(result)
        if isinstance(found, Rejected):
            return found
        one_each = found is not None and found.repeat is None
        return Accepted() if one_each else Rejected(f"'{result.name}' has not one element for each of the input")

    def lay(self, value: ir.Value) -> Lay | Rejected | None:
        """None for numbers and parameters, which have no layout of their own."""
        if value not in self._known:
            self._known[value] = self._lay(value)
        return self._known[value]

    @property
    def _groups(self) -> Dim:
        return self.view.batch * Dim(self.view.num_groups)

    def _lay(self, value: ir.Value) -> Lay | Rejected | None:
        shape, node = self.facts.shape(value), value.producer()
        if value in self.parameters or (node not in self._nodes and shape is not None and set(shape) <= {ONE}):
            return None
        if shape is None:
            return Rejected(f"the shape of '{value.name}' is not known")
        if value is self.tensor:
            return Lay(shape, None)
        if node is None or node not in self._nodes:
            twins = (self.tensor, *(n.outputs[0] for n in self._nodes if n.outputs[0] is not value))
            twin = next((v for v in twins if self.facts.same(v, value)), None)
            return self.lay(twin) if twin is not None else Rejected(f"'{value.name}' does not come from the tensor")
        inputs = [v for v in node.inputs if v is not None]
        if node.op_type == "And":  # whatever else is asked for, a guard that holds holds for the group
            inputs = [v for v in inputs if v.producer() in self._nodes]
        elif (decided := handed_on(node, self.facts) if node.op_type == "Where" else None) is not None:
            inputs = [decided]
        elif node.op_type not in _BINARY:
            inputs = inputs[:1]
        found = [(v, self.lay(v)) for v in inputs]
        for _, lay in found:
            if isinstance(lay, Rejected):
                return lay
        laid = [lay for _, lay in found if isinstance(lay, Lay)]
        if not laid:
            return Rejected(f"'{value.name}' does not come from the tensor")
        if node.op_type in REDUCTIONS:
            return self._reduced(node, laid[0], shape)
        if node.op_type in SPREADING.split():
            return self._spread(node, inputs[0], shape)
        if len(inputs) == 1 and node.op_type != "And":
            return self._passed(node, laid[0], shape)
        held = next((v for v in inputs if v in self.parameters), None)
        return self._with(held, laid[0], shape) if held is not None else self._joined(node, laid, shape)

    def _passed(self, node: ir.Node, lay: Lay, shape: Shape) -> Lay | Rejected:
        if node.op_type in CASTS and narrows(node, self.facts):
            if not holds(self.facts.dtype(node.outputs[0]), source_dtype(self.view, self.tensor, self.facts)):
                return Rejected(f"'{node.outputs[0].name}' is rounded by a Cast")
            self.rounded = True
        return Lay(shape, lay.repeat)

    def _reduced(self, node: ir.Node, lay: Lay, shape: Shape) -> Lay | Rejected:
        axes, view = self.facts.axes(node), self.view
        if axes is None:
            return Rejected(f"the axes of {node.op_type} '{node.name}' are not known")
        if lay.repeat is not None:
            return Rejected(f"{node.op_type} '{node.name}' reduces what is reduced already")
        groups = groups_of(view.shape, lay.shape, axes, view.channel_axis, reshaped=True, merged=self.merged)
        if isinstance(groups, Rejected):
            return groups
        if groups != view.num_groups:
            return Rejected(f"mean and variance are taken over different axes: {groups} and {view.num_groups} groups")
        return Lay(shape, ONE)

    def _spread(self, node: ir.Node, source: ir.Value, shape: Shape) -> Lay | Rejected:
        """Each element a number of times, which keeps those of a group together if it happens within the group."""
        lay = self.lay(source)
        if not isinstance(lay, Lay):
            return lay or Rejected(f"{node.op_type} '{node.name}' repeats something else")
        before = (ONE,) * (len(shape) - len(lay.shape)) + lay.shape
        right = len(before) == len(shape) and self._repeats(node, source, lay.shape, shape)
        if right and lay.repeat is None:
            return lay if before == shape else Rejected(f"{node.op_type} '{node.name}' repeats the tensor itself")
        for axis, (old, new) in enumerate(zip(before, shape, strict=False)):
            within = axis + 1 if node.op_type == "Gather" else axis
            right &= old == new or product(before[:within]).divided_by(self._groups) is not None
        if not right:
            name = node.outputs[0].name
            return Rejected(f"'{name}' {spelled(shape)} does not repeat each group's number for its own channels")
        each = product(shape).divided_by(self._groups)
        return Lay(shape, each) if each is not None else Rejected(f"'{node.outputs[0].name}' is not one row per group")

    def _repeats(self, node: ir.Node, source: ir.Value, before: Shape, after: Shape) -> bool:
        """Whether it is ``source`` alone that comes again, and where single elements are picked each follows itself."""
        if node.op_type == "Concat":
            return all(v is not None and self.facts.same(v, source) for v in node.inputs)
        if node.op_type != "Gather":
            return True
        axis, indices = integer(node, "axis", 0), self.facts.integers(node.inputs[1])
        count = before[axis].known if len(before) == len(after) and -len(before) <= axis < len(before) else None
        if indices is None or not count or len(indices) % count:
            return False
        picked = [i + count if i < 0 else i for i in indices]
        return picked == np.repeat(np.arange(count), len(indices) // count).tolist()

    def _with(self, held: ir.Value, lay: Lay, shape: Shape) -> Lay | Rejected:
        """Statistics and a parameter, perhaps broadcast against each other."""
        told = per_channel(held, shape, self.view, self.facts)
        if lay.repeat is None or told is None:
            return Rejected(f"'{held.name}' is not one number per channel")
        if self.applied.setdefault(held, told) is not told and self.facts.shape(held) is None:
            return Rejected(f"'{held.name}' is applied twice")
        each = product(shape).divided_by(self._groups)
        if each is None or not self._reaches(lay, shape):
            return Rejected(f"'{held.name}' is not applied to one number per group")
        return Lay(shape, each)

    def _joined(self, node: ir.Node, laid: list[Lay], shape: Shape) -> Lay | Rejected:
        elements = [lay for lay in laid if lay.repeat is None]
        statistics = [lay for lay in laid if lay.repeat is not None]
        name = node.outputs[0].name
        whole = next((lay for lay in (*elements, *statistics) if lay.shape == shape), None)
        if whole is None or any(lay != whole for lay in elements):
            shapes = " and ".join(spelled(lay.shape) for lay in laid)
            return Rejected(f"'{name}' combines values of different shapes: {shapes}")
        for lay in statistics:
            if lay != whole and not self._reaches(lay, whole.shape):
                what = f"{spelled(lay.shape)} against {spelled(whole.shape)}"
                return Rejected(f"'{name}' does not apply each group's number to its own elements: {what}")
        return whole

    def _reaches(self, lay: Lay, shape: Shape) -> bool:
        """Whether broadcasting against ``shape``, the elements in order, gives each element its own group's number."""
        if len(lay.shape) != len(shape):
            return False
        named = [i for i, d in enumerate(lay.shape) if d != ONE]
        if any(lay.shape[i] != shape[i] for i in named):
            return False
        stop = named[-1] + 1 if named else 0
        if self.view.channel_axis == 1:
            return lay.shape[:stop] == shape[:stop]
        channels = self.view.axes_of(self.view.num_channels, shape)
        if channels is None or lay.shape[0] != shape[0] or shape[0] != self.view.batch:
            return False
        return all(i == 0 or i in channels for i in named) and (
            stop <= channels.start or lay.shape[channels.start : stop] == shape[channels.start : stop]
        )
