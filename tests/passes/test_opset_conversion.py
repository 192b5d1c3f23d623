"""GroupNormalization 18 <-> 21: scale and bias, epsilon and stash type converted exactly, whoever converted before."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gn_deploy as gn
from gn_deploy.api import inspect
from gn_deploy.cli.app import run
from gn_deploy.decision import Accepted, Decision, Rejected
from gn_deploy.errors import InputError
from gn_deploy.forms.base import GroupNormSite
from gn_deploy.passes.lower import LowerGroupNorm
from gn_deploy.reference import group_norm
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.spec import GroupNormSpec
from tests.forms.writing import write

PER_GROUP = """(float[N,8,H,W] x) => (float[N,8,H,W] y) <float[4] w = {1,-2,3,0.5}, float[4] b = {4,3,-2,1}>
    { y = GroupNormalization<num_groups = 4, epsilon = 0.001>(x, w, b) }"""
PER_CHANNEL = """(float[N,8,H,W] x) => (float[N,8,H,W] y)
    <float[8] w = {1,2,3,4,5,6,7,8}, float[8] b = {4,3,2,1,0,1,2,3}>
    { y = GroupNormalization<num_groups = 4, epsilon = 0.001>(x, w, b) }"""


def model(text: str, opset: int) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> agraph {text}'))


def lower(source: ir.Model, form: str) -> ir.Model:
    """Written in the form, proved by the float64 oracle on the way."""
    lowered = gn.lower(source, f"onnx+{form}")
    assert [d.wrote for d in lowered.decisions] == [form], lowered.decisions
    return lowered.model


def kinds(made: ir.Model) -> list[str]:
    return [node.op_type for node in made.graph]


def the_norm(made: ir.Model) -> ir.Node:
    (node,) = (n for n in made.graph if n.op_type == "GroupNormalization")
    return node


def results(made: ir.Model, feeds: dict[str, np.ndarray], precision: str | None = "float64") -> np.ndarray:
    return RUNTIMES.require("onnx-reference").open(made, precision=precision).run(feeds)["y"]


@st.composite
def specs(draw: st.DrawFn) -> GroupNormSpec:
    groups = draw(st.sampled_from([1, 2, 3]))
    dtype = draw(st.sampled_from(["float32", "float16", "bfloat16", "float64"]))
    return GroupNormSpec(
        num_groups=groups,
        num_channels=groups * draw(st.integers(1, 3)),
        epsilon=draw(st.sampled_from([1e-5, 1e-6, 1e-3, 0.1])),
        rank=draw(st.integers(3, 5)),
        dtype=dtype,
        stash_dtype="float64" if dtype == "float64" else draw(st.sampled_from(["float32", "float64"])),
        channel_axis=draw(st.sampled_from([1, -1])),
    )


@settings(max_examples=60, deadline=None)
@given(spec=specs(), repeated=st.booleans(), seed=st.integers(0, 99))
def test_there_and_back_keeps_every_bit(spec: GroupNormSpec, repeated: bool, seed: int) -> None:
    """21 -> 20 -> 21: in float64 each is the same to the last bit, the last file has the parameters of the first."""
    rng = np.random.default_rng(seed)
    shape = [2, spec.num_channels, *(2, 3, 2)[: (spec.rank or 2) - 2]]
    per = spec.num_groups if repeated else spec.num_channels
    scale, bias = (np.repeat(rng.integers(-8, 9, per) / 4, spec.num_channels // per) for _ in range(2))
    if spec.channel_axis == -1:
        shape.append(shape.pop(1))
    first = write("native", spec, scale, bias, list(shape), 21)
    down = lower(first, "native18")
    back = lower(down, "native")
    assert [m.opset_imports[""] for m in (first, down, back)] == [21, 20, 21]
    x = rng.normal(1.0, 2.0, shape)
    expected = results(first, {"x": x})
    # float64 but for epsilon, an attribute in float32: 2^-24 of it, times |y| < 2 * 8, times at most 1/2
    np.testing.assert_allclose(expected, group_norm(x, spec, scale, bias), rtol=0, atol=2**-24 * 8)
    for made in (down, back):
        np.testing.assert_array_equal(results(made, {"x": x}), expected)
        np.testing.assert_array_equal(results(made, {"x": x}, None), results(first, {"x": x}, None))
    norm, was = the_norm(back), the_norm(first)
    assert {n: a.value for n, a in norm.attributes.items()} == {n: a.value for n, a in was.attributes.items()}
    for new, old in zip(norm.inputs[1:], was.inputs[1:], strict=True):
        assert new is not None
        assert old is not None
        np.testing.assert_array_equal(new.const_value.numpy(), old.const_value.numpy())  # type: ignore[union-attr]


@pytest.mark.parametrize("opset", [18, 19, 20])
def test_upwards_repeats_scale_and_bias(opset: int) -> None:
    before = model(PER_GROUP, opset)
    after = lower(before, "native")
    assert kinds(after) == ["GroupNormalization"]
    _, scale, bias = the_norm(after).inputs
    assert scale is not None
    assert bias is not None
    np.testing.assert_array_equal(scale.const_value.numpy(), [1, 1, -2, -2, 3, 3, 0.5, 0.5])  # type: ignore[union-attr]
    np.testing.assert_array_equal(bias.const_value.numpy(), [4, 4, 3, 3, -2, -2, 1, 1])  # type: ignore[union-attr]
    x = np.random.default_rng(0).normal(size=(2, 8, 3, 5))
    np.testing.assert_array_equal(results(after, {"x": x}), results(before, {"x": x}))
    onnx.checker.check_model(ir.to_proto(after), full_check=True)
    again = lower(after, "native18")
    assert kinds(again) == ["GroupNormalization"]  # one number per group: it is all in the op
    np.testing.assert_array_equal(results(again, {"x": x}), results(before, {"x": x}))


@pytest.mark.parametrize("computed", [False, True])
def test_upwards_repeats_what_is_only_known_at_run_time(computed: bool) -> None:
    """epsilon, absent in the file, is 1e-5 by the standard; it is written, so that no converter can lose it."""
    before = model(
        f"""(float[N,8,H,W] x, float[4] w, float[4] b) => (float[N,8,H,W] y)
        {{ v = {"Neg" if computed else "Identity"}(w) y = GroupNormalization<num_groups = 4>(x, v, b) }}""",
        18,
    )
    after = lower(before, "native")
    assert the_norm(after).attributes["epsilon"].as_float() == np.float32(1e-5)
    onnx.checker.check_model(ir.to_proto(after), full_check=True)
    rng = np.random.default_rng(0)
    feeds = {"x": rng.normal(1, 2, (2, 8, 3, 5)), "w": rng.normal(size=4), "b": rng.normal(size=4)}
    scale = np.repeat(-feeds["w"] if computed else feeds["w"], 2)
    expected = group_norm(feeds["x"], GroupNormSpec(4, 8), scale, np.repeat(feeds["b"], 2))
    # epsilon is a float32 attribute: 2^-24 of 1e-5 is all that may differ from the oracle beyond float64's own error
    np.testing.assert_allclose(results(after, feeds), expected, rtol=1e-11, atol=1e-11)
    np.testing.assert_array_equal(results(after, feeds), results(before, feeds))
    np.testing.assert_array_equal(results(lower(after, "native18"), feeds), results(before, feeds))


def test_as_many_groups_as_channels_stay_in_the_op_also_at_run_time() -> None:
    before = model(
        """(float[N,8,H,W] x, float[8] w) => (float[N,8,H,W] y) <float[8] b = {1,2,3,4,5,6,7,8}>
        { y = GroupNormalization<num_groups = 8>(x, w, b) }""",
        21,
    )
    assert kinds(lower(before, "native18")) == ["GroupNormalization"]


def test_parameters_per_channel_follow_the_op() -> None:
    assert kinds(lower(model(PER_CHANNEL, 21), "native18")) == ["GroupNormalization", "Mul", "Add"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_keeps_its_statistics_in_float32(dtype: str) -> None:
    """At 18 nothing says in which type they are taken: it is read as float32, and written so that it is float32."""
    spec = GroupNormSpec(4, 8, rank=4, dtype=dtype)
    scale = np.arange(8) / 4
    old = write("native18", replace(spec, stash_dtype=dtype), None, None, [2, 8, 3, 5], 18)
    assert kinds(old) == ["GroupNormalization"]
    assert gn.find(old)[0].spec == spec
    assert the_norm(lower(old, "native")).attributes["stash_type"].as_int() == ir.DataType.FLOAT
    down = lower(write("native", spec, scale, None, [2, 8, 3, 5], 21), "native18")
    assert kinds(down) == ["Cast", "GroupNormalization", "Cast", "Mul"]
    assert gn.find(down)[0].spec == spec
    x = 3000 * np.random.default_rng(0).normal(size=(2, 8, 3, 5))  # x * x overflows float16
    actual = results(down, {"x": x}, None).astype(np.float64)
    expected = group_norm(x.astype(ir.DataType[dtype.upper()].numpy()), spec, scale)
    unit = 2.0**-11 if dtype == "float16" else 2.0**-8
    np.testing.assert_allclose(actual, expected, rtol=3 * unit, atol=3 * unit)  # three roundings: z, product, and scale


def test_onnx_runtime_computes_what_is_written_downwards() -> None:
    made = lower(model(PER_CHANNEL, 21), "native18")
    x = np.random.default_rng(0).normal(size=(2, 8, 3, 5)).astype(np.float32)
    y = RUNTIMES.require("onnxruntime").open(made).run({"x": x})["y"]
    scale, bias = np.arange(1, 9), np.array([4, 3, 2, 1, 0, 1, 2, 3])
    expected = group_norm(x, GroupNormSpec(4, 8, 1e-3), scale, bias)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-4)  # one pass in float32 on 30 numbers, times 8


def test_a_norm_that_is_left_forbids_lowering_the_opset() -> None:
    """Its scale would become one per group."""
    two = model(
        """(float[2,8,4,4] x) => (float[2,8,4,4] y) <float[8] w = {1,2,3,4,5,6,7,8}>
        { a = GroupNormalization<num_groups = 4>(x, w, w) y = GroupNormalization<num_groups = 4>(a, w, w) }""",
        21,
    )
    before = ir.to_proto(two).SerializeToString()

    def only_the_first(site: GroupNormSite, old: ir.Model, new: ir.Model) -> Decision:
        return Accepted() if site.output.name == "a" else Rejected("no")

    decisions = LowerGroupNorm("onnx+native18", verify=only_the_first)(two).decisions  # type: ignore[attr-defined]
    assert [d.wrote for d in decisions] == [None, None]
    assert "opset 21 cannot be lowered to 20: GroupNormalization changed" in decisions[0].decision.reason
    assert ir.to_proto(two).SerializeToString() == before
    assert [d.wrote for d in gn.lower(two, "onnx+native18").decisions] == ["native18", "native18"]


def test_what_inspect_announces_is_what_lower_does() -> None:
    """One norm of unknown rank cannot be written at 20, so the other is not either."""
    made = model(
        """(float[2,8,4,4] x, int64[r] s, float[8] w) => (float[2,8,4,4] y, float[a,b,c] z)
        { y = GroupNormalization<num_groups = 4>(x, w, w) v = Reshape(x, s)
          z = GroupNormalization<num_groups = 4>(v, w, w) }""",
        21,
    )
    announced = inspect(made, "onnx+native18").decisions
    assert announced == gn.lower(made, "onnx+native18").decisions
    assert [d.wrote for d in announced] == [None, None]
    assert "('z')" in announced[0].decision.reason
    assert "rank of the input is not known" in announced[1].decision.reason


def test_a_node_of_the_newer_opset_is_named() -> None:
    made = model(PER_CHANNEL.replace("y =", "s = Swish(x) y =").replace("(x, w", "(s, w"), 24)
    lowered = gn.lower(made, "onnx+native18")
    (decision,) = lowered.decisions
    assert decision.wrote is None
    assert "opset 24 cannot be lowered to 20: Swish is not an op of opset 20 ('s')" in decision.decision.reason
    assert lowered.model.opset_imports[""] == 24


def test_norms_in_branches_and_functions_are_converted_along() -> None:
    made = ir.from_proto(
        onnx.parser.parse_model(
            """<ir_version: 10, opset_import: ["": 21, "my": 1]>
            agraph (float[2,8,4,4] x, bool c, float[8] w) => (float[2,8,4,4] y) {
              g = my.norm(x, w) s = Shape(x) h = Reshape(g, s)
              y = If (c) <
                then_branch = g1 () => (float[2,8,4,4] t) { t = GroupNormalization<num_groups = 4>(h, w, w) },
                else_branch = g2 () => (float[2,8,4,4] e) { e = Identity(h) }> }
            <domain: "my", opset_import: ["": 21]> norm (i, w) => (o) {
              k = Constant<value = int64[4] {2,8,4,4}>() r = Reshape(i, k) f = Cast<to = 1>(r)
              o = GroupNormalization<num_groups = 2>(f, w, w) }"""
        )
    )
    feeds = {"x": np.random.default_rng(0).normal(size=(2, 8, 4, 4)), "w": np.arange(8.0), "c": np.asarray(True)}
    expected = results(made, feeds)
    down = ir.from_proto(ir.to_proto(made))
    decisions = LowerGroupNorm("onnx+native18")(down).decisions  # type: ignore[attr-defined]
    assert [d.wrote for d in decisions] == ["native18", "native18"]
    (function,) = down.functions.values()
    assert (down.opset_imports[""], function.opset_imports[""]) == (20, 20)
    np.testing.assert_array_equal(results(down, feeds), expected)
    LowerGroupNorm("onnx+native")(down)
    assert (down.opset_imports[""], function.opset_imports[""]) == (21, 21)
    np.testing.assert_array_equal(results(down, feeds), expected)


def test_what_onnx_version_converter_breaks_is_named_and_never_lowered(tmp_path: Path) -> None:
    from onnx.version_converter import convert_version

    broken = convert_version(ir.to_proto(model(PER_GROUP, 18)), 21)
    (site,) = gn.find(broken)
    assert "scale of 4 elements, 8 were needed at opset 21" in site.invalid
    assert "onnx.version_converter" in site.invalid
    (decision,) = inspect(broken, "onnx+native").decisions
    assert (decision.wrote, decision.decision) == (None, Rejected(site.invalid))
    with pytest.raises(InputError, match=r"onnx\.version_converter") as error:
        gn.lower(broken, "onnx+native18")
    assert "before it was converted" in error.value.hint
    onnx.save(broken, tmp_path / "broken.onnx")
    assert run(["lower", str(tmp_path / "broken.onnx"), "--target", "onnx+native", "-o", str(tmp_path / "o.onnx")]) == 2
    assert not (tmp_path / "o.onnx").exists()


def test_what_onnxscript_version_converter_drops_is_remarked(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from onnxscript.version_converter import convert_version

    converted = model(PER_GROUP.replace("[N,8,H,W]", "[2,8,3,5]"), 18)
    convert_version(converted, 21)
    (site,) = gn.find(converted)
    assert site.spec.epsilon == 1e-5  # the file had 1e-3
    assert ["onnxscript" in remark for remark in site.remarks] == [True]
    ir.save(converted, tmp_path / "m.onnx")
    assert run(["inspect", str(tmp_path / "m.onnx"), "--json"]) == 0
    (row,) = json.loads(capfd.readouterr().out)["sites"]
    assert row["notes"] == list(site.remarks)


def test_no_epsilon_in_a_file_that_no_converter_wrote_is_no_remark() -> None:
    (site,) = gn.find(model(PER_CHANNEL.replace(", epsilon = 0.001", ""), 21))
    assert site.spec.epsilon == 1e-5
    assert not site.remarks


def test_the_command_line_converts_down_and_up_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first, down, back = (str(tmp_path / name) for name in ("first.onnx", "down.onnx", "back.onnx"))
    ir.save(model(PER_CHANNEL, 22), first)
    assert run(["lower", first, "--target", "onnx+native18", "-o", down]) == 0
    assert "opset 22 -> 20" in capfd.readouterr().err
    assert run(["lower", down, "--target", "onnx+native", "-o", back]) == 0
    assert "opset 20 -> 21" in capfd.readouterr().err
    x = np.random.default_rng(0).normal(size=(3, 8, 4, 2))
    expected = results(ir.load(first), {"x": x})
    for path in (down, back):
        np.testing.assert_array_equal(results(ir.load(path), {"x": x}), expected)
        assert run(["parity", first, path]) == 0
