"""Fused nodes, com.microsoft's and plugins': read in every combination, written, their schema known to ONNX Runtime."""

import itertools
from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import gn_deploy as gn
from gn_deploy.api import inspect
from gn_deploy.passes.lower import Lowered, LowerGroupNorm
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.spec import GroupNormSpec
from tests.forms.writing import affine, written

C, GROUPS, EPSILON = 8, 2, 1e-3
ELEMENT = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
SCALE, BIAS = (np.arange(C) / 4 + 0.5).astype(np.float32), (np.arange(C) / 2 - 1).astype(np.float32)
PLAIN = ("native", "instance_norm", "layer_norm", "primitives")
ALL = (*PLAIN, "contrib", "plugin")
PARTS = pytest.mark.parametrize("part", [3, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
"""By default each combination is written in one form in three, the next one in the next."""


def node(
    domain: str,
    op: str,
    inputs: dict[str, Sequence[int | str]],
    shape: Sequence[int | str],
    *,
    outputs: Sequence[str] = ("y",),
    unread: Sequence[str] = (),
    dtype: str = "float32",
    constants: dict[str, np.ndarray] | None = None,
    order: str = "x scale bias",
    **attributes: object,
) -> ir.Model:
    """One node; ``inputs`` with their shapes, x first, ``order`` the names of all it reads ("-" for none)."""
    held = {"scale": SCALE, "bias": BIAS} | (constants or {})
    named = ["" if name == "-" else name for name in order.split()]
    graph = helper.make_graph(
        [helper.make_node(op, named, [*outputs, *unread], name="gn", domain=domain, **attributes)],
        "one",
        [helper.make_tensor_value_info(name, ELEMENT[dtype], dims) for name, dims in inputs.items()],
        [helper.make_tensor_value_info(name, ELEMENT[dtype], shape) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in held.items() if name in named],
    )
    imports = [helper.make_opsetid("", 21), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10))


def drawn(model: ir.Model, size: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {str(v.name): [d if isinstance(d, int) else size for d in v.shape or ()] for v in model.graph.inputs}
    return {name: rng.normal(1.0, 2.0, shape) for name, shape in shapes.items()}


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return RUNTIMES.require("onnx-reference").open(model, precision="float64").run(feeds)


def by_torch(
    x: np.ndarray, *, last: bool, silu: bool, s: np.ndarray | None = None, t: np.ndarray | None = None
) -> np.ndarray:
    first = torch.from_numpy(np.moveaxis(x, -1, 1) if last else x)
    scale, bias = (torch.from_numpy(a).double() for a in (SCALE, BIAS))
    y = torch.nn.functional.group_norm(first, GROUPS, scale, bias, EPSILON)
    y = y if s is None else y * (1 + torch.from_numpy(s))
    y = y if t is None else y + torch.from_numpy(t)
    y = torch.nn.functional.silu(y) if silu else y
    return np.moveaxis(y.numpy(), 1, -1) if last else y.numpy()


def keeps(model: ir.Model, wanted: dict[str, np.ndarray], *, forms: Sequence[str] = ALL) -> None:
    """Lowered to every form, each proved: the numbers are torch's, and a second time there is nothing to do."""
    feeds = drawn(model)
    outputs = [str(v.name) for v in model.graph.outputs]
    for form in forms:
        lowered, (decision,) = gn.lower(model, f"onnx+{form}")
        assert decision.decision, decision.decision.reason
        assert [str(v.name) for v in lowered.graph.outputs] == outputs
        assert (form == "contrib") == any(n.domain == "com.microsoft" for n in lowered.graph)
        onnx.checker.check_model(ir.to_proto(lowered), full_check=True)
        actual = run(ir.from_proto(ir.to_proto(lowered)), feeds)
        for name in outputs:  # epsilon in float32
            np.testing.assert_allclose(actual[name], wanted[name], rtol=1e-5, atol=1e-5)
        assert not any(d.wrote for d in gn.lower(lowered, f"onnx+{form}").decisions)


@PARTS
@pytest.mark.parametrize(("dtype", "sizes"), [("float32", ("N", "H", "W")), ("float16", (2, 3, 4))])
@pytest.mark.parametrize("last", [0, 1, None])
@pytest.mark.parametrize("activation", [0, 1, None])
def test_group_norm_in_every_combination(
    dtype: str, sizes: Sequence[int | str], last: int | None, activation: int | None, part: int
) -> None:
    told = {name: n for name, n in (("channels_last", last), ("activation", activation)) if n is not None}
    turned = last != 0
    shape = [sizes[0], *sizes[1:], C] if turned else [sizes[0], C, *sizes[1:]]
    model = node("com.microsoft", "GroupNorm", {"x": shape}, shape, dtype=dtype, groups=GROUPS, epsilon=EPSILON, **told)
    (site,) = gn.find(model)
    assert (site.spec.num_groups, site.spec.num_channels, site.spec.dtype) == (GROUPS, C, dtype)
    assert site.spec.channel_axis == (-1 if turned else 1)
    assert str(site.spec.activation) == ("silu" if activation else "none")
    assert site.spec.wide_affine == (dtype == "float16")
    number = (last or 0) + 2 * (activation or 0) + len(told) + len(dtype)
    wanted = by_torch(drawn(model)["x"], last=turned, silu=bool(activation))
    keeps(model, {"y": wanted}, forms=ALL[number % part :: part])


SKIPS = {"same shape": ("N", "H", "W", C), "per channel": ("N", 1, 1, C), "matrix": ("N", C)}


@PARTS
@pytest.mark.parametrize("activation", [0, 1])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("skip", SKIPS)
@pytest.mark.parametrize("sum_is", ["absent", "unused", "used"])
def test_skip_group_norm_in_every_combination(skip: str, biased: bool, activation: int, sum_is: str, part: int) -> None:
    shape = ("N", "H", "W", C)
    added = np.linspace(-1, 1, C).astype(np.float32)
    model = node(
        "com.microsoft", "SkipGroupNorm", {"x": shape, "skip": SKIPS[skip]}, shape,
        outputs=["y", *(["S"] if sum_is == "used" else [])], unread=["S"] if sum_is == "unused" else [],
        constants={"added": added}, order="x scale bias skip" + " added" * biased,
        groups=GROUPS, epsilon=EPSILON, activation=activation,
    )  # fmt: skip
    (site,) = gn.find(model)
    assert site.spec.residual
    assert (site.sum is not None) == (sum_is == "used")
    feeds = drawn(model)
    residual = feeds["skip"] if skip != "matrix" else feeds["skip"][:, None, None, :]
    total = feeds["x"] + residual + (added if biased else 0)
    number = [*SKIPS].index(skip) + biased + activation + len(sum_is)
    wanted = {"y": by_torch(total, last=True, silu=bool(activation)), "S": total}
    keeps(model, wanted, forms=ALL[number % part :: part])


@pytest.mark.parametrize("last", [0, 1])
def test_a_bias_of_the_residual_known_at_run_time(last: int) -> None:
    shape = ("N", "H", "W", C) if last else ("N", C, "H", "W")
    model = node(
        "com.microsoft", "SkipGroupNorm", {"x": shape, "skip": ("N", C), "added": (C,)}, shape, outputs=["y", "S"],
        order="x scale bias skip added", groups=GROUPS, epsilon=EPSILON, channels_last=last,
    )  # fmt: skip
    feeds = drawn(model)
    axes = (1, 2) if last else (2, 3)
    added = feeds["added"] if last else feeds["added"][:, None, None]
    total = feeds["x"] + np.expand_dims(feeds["skip"], axes) + added
    keeps(model, {"y": by_torch(total, last=bool(last), silu=False), "S": total})


def test_what_the_nodes_may_not_be() -> None:
    shape = ("N", "H", "W", C)

    def reason(**options: object) -> str:
        attributes = {"groups": GROUPS, "epsilon": EPSILON} | options
        inputs = {"x": shape, **attributes.pop("inputs", {})}  # type: ignore[dict-item]
        model = node("com.microsoft", str(attributes.pop("op", "GroupNorm")), inputs, shape, **attributes)  # type: ignore[arg-type]
        seen = inspect(model)
        assert not seen.sites
        return "; ".join(m.reason for m in seen.near_misses)

    assert "activation 2 is not 0 (none) or 1 (SiLU)" in reason(activation=2)
    assert "elements for 8 channels in 0 groups" in reason(groups=0)
    assert "not divisible" in reason(groups=3)
    assert "[4, 8] elements for 8 channels" in reason(constants={"scale": SCALE[:4]})
    assert "[0, 8] elements" in reason(inputs={"scale": (1, C)})
    assert "for None channels" in reason(inputs={"x": (C,)})
    assert "are not known to fit" in reason(op="SkipGroupNorm", order="x scale bias skip", inputs={"skip": (C,)})


def test_groups_are_of_what_the_attribute_says_not_of_shapes() -> None:
    shape = (2, C, C, C)  # every axis might be the channels
    model = node("com.microsoft", "GroupNorm", {"x": shape}, shape, groups=GROUPS, epsilon=EPSILON)
    keeps(model, {"y": by_torch(drawn(model)["x"], last=True, silu=False)})


@pytest.mark.parametrize("operands", list(itertools.product([False, True], repeat=3)))
@pytest.mark.parametrize("activation", ["none", "gelu"])
def test_our_own_node(operands: tuple[bool, bool, bool], activation: str) -> None:
    shape = ("N", C, "H", "W")
    sizes = {"r": shape, "s": ("N", C, 1, 1), "t": (1, C, 1, 1)}
    there = [name if has else "-" for name, has in zip(sizes, operands, strict=True)]
    inputs = {"x": shape} | {name: sizes[name] for name in there if name != "-"}
    model = node(
        "gn_deploy", "GroupNorm", inputs, shape, order=" ".join(["x scale bias", *there]).rstrip(" -"),
        num_groups=GROUPS, epsilon=EPSILON, activation=activation,
    )  # fmt: skip
    (site,) = gn.find(model)
    assert site.form == "plugin"
    assert (site.spec.residual, site.spec.scale_shift) == (operands[0], operands[1] or operands[2])
    feeds = drawn(model)
    total = feeds["x"] + feeds.get("r", 0.0)
    y = by_torch(total, last=False, silu=activation == "silu", s=feeds.get("s"), t=feeds.get("t"))
    y = torch.nn.functional.gelu(torch.from_numpy(y)).numpy() if activation == "gelu" else y
    keeps(model, {"y": y})


@pytest.mark.parametrize(
    ("domain", "op", "attributes"),
    [
        ("", "GroupNormalizationPlugin", {"num_groups": GROUPS, "eps": EPSILON}),
        ("trt.plugins", "GroupNormalizationPlugin", {"num_groups": GROUPS, "eps": EPSILON}),
    ],
)
def test_nvidias_node(domain: str, op: str, attributes: dict[str, object]) -> None:
    shape = (2, C, 5, 5)
    model = node(domain, op, {"x": shape}, shape, **attributes)  # type: ignore[arg-type]
    wanted = {"y": by_torch(drawn(model)["x"], last=False, silu=False)}
    (site,) = gn.find(model)
    assert site.form == "nvidia_plugin"
    keeps(model, wanted)


@pytest.mark.parametrize("swish", [0, 1])
def test_nvidias_node_of_stable_diffusion_has_32_groups(swish: int) -> None:
    channels = 64
    ramp = np.linspace(-1, 1, channels, dtype=np.float32)
    held = {"scale": ramp + 2, "bias": ramp}
    shape = (2, channels, 5, 5)
    model = node("trt.plugins", "GroupNorm", {"x": shape}, shape, constants=held, epsilon=EPSILON, bSwish=swish)
    x, weights = torch.from_numpy(drawn(model)["x"]), [torch.from_numpy(a).double() for a in held.values()]
    y = torch.nn.functional.group_norm(x, 32, *weights, EPSILON)
    keeps(model, {"y": (torch.nn.functional.silu(y) if swish else y).numpy()})


FUNCTION = """<ir_version: 10, opset_import: ["": 21, "my": 1]>
 g (float[2,8,4,4] x, float[2,8,4,4] r, bool c) => (float[2,8,4,4] y, float[2,8,4,4] v) {
  y, q = my.block (x, r)  v = my.again (q, c) }
<opset_import: ["": 21], domain: "my"> block (a, b) => (o, s) {
  k = Constant<value = float[8] {1,2,3,4,5,6,7,8}>()  d = Constant<value = int64[4] {2,8,4,4}>()
  x = Reshape(a, d)  r = Reshape(b, d)  s = Add(x, r)  e = Neg(s)  z = GroupNormalization<num_groups = 2>(s, k, k)
  h = Sigmoid(z)  u = Mul(z, h)  o = Add(u, e) }
<opset_import: ["": 21], domain: "my"> again (a, c) => (o) {
  k = Constant<value = float[8] {1,2,3,4,5,6,7,8}>()  d = Constant<value = int64[4] {2,8,4,4}>()  x = Reshape(a, d)
  o = If(c) <then_branch = t () => (p) { i = GroupNormalization<num_groups = 2>(x, k, k)  p = Relu(i) },
             else_branch = f () => (q) { q = Neg(x) }> }"""


def test_functions_import_the_domain() -> None:
    model = ir.from_proto(onnx.parser.parse_model(FUNCTION))
    cases = [drawn(model) | {"c": np.asarray(taken)} for taken in (False, True)]
    before = [run(model, feeds) for feeds in cases]
    result = LowerGroupNorm("onnx+contrib")(model)
    assert isinstance(result, Lowered)
    assert [d.wrote for d in result.decisions] == ["contrib", "contrib"]
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto)
    assert ["com.microsoft" in {i.domain for i in f.opset_import} for f in proto.functions] == [True, True]
    assert "com.microsoft" not in {i.domain for i in proto.opset_import}
    (skip,) = (n for n in proto.functions[0].node if n.op_type == "SkipGroupNorm")
    assert len(skip.output) == 2
    for feeds, old in zip(cases, before, strict=True):
        for name, value in run(ir.from_proto(proto), feeds).items():
            np.testing.assert_allclose(value, old[name], rtol=1e-5, atol=1e-5)
    assert not LowerGroupNorm("onnx+contrib")(model).modified


def test_in_a_branch_the_model_imports_the_domain() -> None:
    text = """<ir_version: 10, opset_import: ["": 21]>
     g (float[2,8,4,4] x, float[2,8,4,4] r, bool c) => (float[2,8,4,4] y)
     <float[8] k = {1,2,3,4,5,6,7,8}> { y = If(c) <
      then_branch = t () => (float[2,8,4,4] p) { e = Add(x, r) d = Neg(e)
        z = GroupNormalization<num_groups = 2>(e, k, k)
        i = Sigmoid(z) u = Mul(z, i) p = Add(u, d) },
      else_branch = f () => (float[2,8,4,4] q) { q = GroupNormalization<num_groups = 4>(x, k, k) }> }"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    lowered, decisions = gn.lower(model, "onnx+contrib")
    assert [d.wrote for d in decisions] == ["contrib", "contrib"]
    onnx.checker.check_model(ir.to_proto(lowered), full_check=True)
    assert {n.op_type for n in lowered.graph.all_nodes() if n.domain} == {"GroupNorm", "SkipGroupNorm"}
    for taken in (False, True):
        feeds = {**drawn(model), "c": np.asarray(taken)}
        np.testing.assert_allclose(run(lowered, feeds)["y"], run(model, feeds)["y"], rtol=1e-5, atol=1e-5)
    assert not any(d.wrote for d in gn.lower(lowered, "onnx+contrib").decisions)


def refusal(model: ir.Model) -> str:
    """What ONNX Runtime says on the CPU, where it has no kernel; a node that breaks its schema is told before."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    data = ir.to_proto(model).SerializeToString()
    try:
        onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of a class per status
        return str(error)
    return ""


WRITTEN = [(dtype, rank, False) for dtype in ELEMENT for rank in (2, 3, 4, 5)]
WRITTEN += [("float32", 4, True), ("float16", 4, True)]  # all that SkipGroupNorm takes


@pytest.mark.parametrize(("dtype", "rank", "residual"), WRITTEN)
def test_onnx_runtime_takes_what_is_written(dtype: str, rank: int, residual: bool) -> None:
    spec = GroupNormSpec(GROUPS, C, rank=rank, dtype=dtype, residual=residual)
    shape = ["N", C, "D", "H", "W"][:rank]
    operands = {"residual": shape} if residual else {}
    model = written("contrib", spec, affine(spec, "both"), shape, 17, operands, keep_sum=residual)
    told = refusal(model)
    assert "NOT_IMPLEMENTED" in told
    assert "SkipGroupNorm" in told if residual else "GroupNorm" in told


def test_onnx_runtime_would_tell() -> None:
    shape = ("N", "H", "W", C)
    wrong = node("com.microsoft", "SkipGroupNorm", {"x": shape}, shape, groups=GROUPS)
    assert "NOT_IMPLEMENTED" not in refusal(wrong)
    assert refusal(wrong)
