"""Networks with residual, modulation and activation around their norms: fused candidates hold, every fault is named."""

import itertools
from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import gn_deploy as gn
from gn_deploy.graph.normalize import normalize
from gn_deploy.graph.splice import Names
from gn_deploy.parity.pairing import pair
from gn_deploy.parity.report import ParityReport
from gn_deploy.parity.status import Status
from gn_deploy.sites import find

NORM = "GroupNormalization<num_groups = 4, epsilon = 0.001>"
TEXT = f"""<ir_version: 10, opset_import: ["": 21, "com.microsoft": 1]>
 network (float[N,3,6,6] x, float[N,16,1,1] film) => (float[N,8,6,6] y)
 <int64[2] halves = {{8, 8}}, float one = {{1}}> {{
  h = Conv(x, k1)
  n1 = {NORM}(h, w1, b1)  g1 = Sigmoid(n1)  a1 = Mul(n1, g1)
  c1 = Conv(a1, k2)
  sum = Add(c1, h)
  n2 = {NORM}(sum, w2, b2)  g2 = Sigmoid(n2)  a2 = Mul(n2, g2)
  c2 = Conv(a2, k2)
  s, t = Split<axis = 1>(film, halves)
  n3 = {NORM}(c2, w3, b3)  gain = Add(s, one)  m3 = Mul(n3, gain)  d3 = Add(m3, t)  g3 = Sigmoid(d3)  a3 = Mul(d3, g3)
  c3 = Conv(a3, k2)
  y = Add(sum, c3) }}"""
NAMES = ("n1", "n2", "n3")


def network() -> ir.Model:
    proto = onnx.parser.parse_model(TEXT)
    rng = np.random.default_rng(3)
    sizes: dict[str, tuple[int, ...]] = {"k1": (8, 3, 1, 1), "k2": (8, 8, 1, 1)}
    sizes |= {f"{which}{i}": (8,) for which in "wb" for i in (1, 2, 3)}
    for name, shape in sizes.items():
        array = (rng.standard_normal(shape) / 2 + 0.5 * (len(shape) == 1)).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model = ir.from_proto(proto)
    for node in model.graph:
        if node.op_type == "GroupNormalization":
            node.metadata_props["pkg.torch.onnx.name_scopes"] = str(["", f"block.{node.outputs[0].name}", "group_norm"])
    return normalize(model)


def candidate(form: str) -> ir.Model:
    lowered, decisions = gn.lower(network(), f"onnx+{form}")
    assert [d.wrote or d.form for d in decisions] == [form] * 3
    return lowered


def renamed(model: ir.Model, *, modules: bool) -> ir.Model:
    names = Names(model)
    for node in model.graph:
        node.name = names.fresh(f"other_{node.name}")
        if not modules:
            node.metadata_props.clear()
        for value in node.outputs:
            if not value.is_graph_output():
                value.name = names.fresh(f"other_{value.name}")
    return model


def nodes_of(model: ir.Model, which: int) -> ir.Node:
    norms = [n for n in model.graph if n.op_type in ("GroupNorm", "SkipGroupNorm", "GroupNormalization")]
    return norms[which]


def less_activation(model: ir.Model) -> int:
    node = nodes_of(model, 1)
    if node.domain:
        node.attributes["activation"] = ir.AttrInt64("activation", 0)
        return 1
    (product,) = [use.node for use in node.outputs[0].uses() if use.node.op_type == "Mul"]
    product.op_type = "Identity"
    product.resize_inputs(1)
    product.replace_input_with(0, node.outputs[0])
    return 1


def residual_after(model: ir.Model) -> int:
    """GN(x) + r for GN(x + r); the sum that others read is as it was."""
    node = nodes_of(model, 1)
    names = Names(model)
    if node.domain:
        x, scale, bias, residual = node.inputs
        y = node.outputs[0]
        new = ir.Node("com.microsoft", "GroupNorm", [x, scale, bias], list(node.attributes.values()), name="norm")
    else:
        add = node.inputs[0].producer() if node.inputs[0] is not None else None
        assert add is not None
        x, residual = add.inputs
        y = node.outputs[0]
        new = ir.Node("", node.op_type, [x, *node.inputs[1:]], list(node.attributes.values()), name="norm")
    new.outputs[0].name = names.fresh("alone")
    late = ir.Node("", "Add", [new.outputs[0], residual], name="late")
    late.outputs[0].name = names.fresh("late")
    model.graph.insert_after(node, [new, late])
    y.replace_all_uses_with(late.outputs[0])
    name, y.name = y.name, names.fresh("gone")
    late.outputs[0].name, late.outputs[0].dtype = name, ir.DataType.FLOAT
    return 1


def less_one(model: ir.Model) -> int:
    """y * s + t for y * (1 + s) + t."""
    for node in list(model.graph):
        constants = [v for v in node.inputs if v is not None and v.const_value is not None and v.const_value.size == 1]
        if node.op_type == "Add" and constants:
            (s,) = [v for v in node.inputs if v not in constants]
            assert s is not None
            node.outputs[0].replace_all_uses_with(s)
            model.graph.remove(node, safe=True)
            return 2
    raise AssertionError("nothing adds one")


def more_epsilon(model: ir.Model) -> int:
    nodes_of(model, 2).attributes["epsilon"] = ir.AttrFloat32("epsilon", 1e-2)
    return 2


def fewer_groups(model: ir.Model) -> int:
    node = nodes_of(model, 1)
    name = "groups" if node.domain else "num_groups"
    node.attributes[name] = ir.AttrInt64(name, 2)
    return 1


Fault = Callable[[ir.Model], int]
FAULTS: tuple[Fault, ...] = (less_activation, residual_after, less_one, more_epsilon, fewer_groups)


def dealt(two: tuple[tuple[object, object], tuple[object, object]], first: int) -> list[object]:
    """Each fault with one of two pairs in turn, and in the slow run with whatever else can be made of both."""
    found: list[object] = []
    for (at, fault), form, how in itertools.product(enumerate(FAULTS), *zip(*two, strict=True)):
        marks = [] if (form, how) == two[(at + first) % 2] else [pytest.mark.slow]
        found.append(pytest.param(fault, form, how, marks=marks, id=f"{fault.__name__}-{form}-{how}"))
    return found


PAIRWISE = [
    ("contrib", "kept", True),
    ("contrib", "modules", False),
    ("native", "order", True),
    ("native", "kept", False),
    ("instance_norm", "modules", True),
    ("instance_norm", "order", False),
]
"""Form, names and whether the whole network runs: with every pair of two of them, not every three."""
REST = [
    every
    for every in itertools.product(("contrib", "native", "instance_norm"), ("kept", "modules", "order"), (True, False))
    if every not in PAIRWISE
]


def broken(report: ParityReport) -> list[int]:
    return [i for i, verdict in enumerate(report.sites) if verdict.status.broken]


@pytest.mark.parametrize(
    ("form", "names", "whole"), [*PAIRWISE, *(pytest.param(*every, marks=pytest.mark.slow) for every in REST)]
)
def test_a_right_candidate_holds(form: str, names: str, whole: bool) -> None:
    model = candidate(form)
    if names != "kept":
        model = renamed(model, modules=names == "modules")
    report = gn.compare(network(), model, network=whole)
    assert report.held, report
    assert [v.status for v in report.sites] == [Status.PASS] * 3
    assert not report.unpaired


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
@pytest.mark.parametrize("form", ["contrib", "layer_norm"])
def test_in_half_precision(form: str, dtype: str) -> None:
    """A convolution stays float32 where it must, so a Cast stands between it and the norm."""
    model = gn.lower(network(), f"onnx:{dtype}+{form}").model
    assert gn.compare(network(), model).held
    if form == "contrib":
        which = less_one(model)
        report = gn.compare(network(), model)
        assert broken(report) == [which]
        assert "no scale_shift is recognised around it" in report.sites[which].reason


@pytest.mark.parametrize(("fault", "form", "whole"), dealt((("contrib", True), ("native", False)), 0))
def test_a_fault_is_named(fault: Fault, form: str, whole: bool) -> None:
    model = candidate(form)
    which = fault(model)
    report = gn.compare(network(), model, network=whole)
    assert not report.held
    assert broken(report) == [which], [(v.site, v.status, v.reason) for v in report.sites]
    assert report.sites[which].status is Status.FAIL
    if whole:
        assert any(o.status.broken for o in report.outputs)


@pytest.mark.parametrize(("fault", "form", "names"), dealt((("contrib", "modules"), ("native", "order")), 1))
def test_a_fault_is_seen_under_other_names(fault: Fault, form: str, names: str) -> None:
    model = candidate(form)
    fault(model)
    report = gn.compare(network(), renamed(model, modules=names == "modules"))
    assert not report.held
    assert any(o.status.broken for o in report.outputs)


@pytest.mark.parametrize("form", ["contrib", "native"])
def test_how_they_are_paired(form: str) -> None:
    a = network()
    for how, model in (
        ("value names", candidate(form)),
        ("module path", renamed(candidate(form), modules=True)),
        ("order", renamed(candidate(form), modules=False)),
    ):
        pairing = pair(a, find(a).sites, model, find(model).sites)
        assert [p.how for p in pairing.pairs] == [how] * 3
        assert [p.form for p in pairing.pairs] == [form] * 3
        assert [p.differs for p in pairing.pairs] == [""] * 3
