"""The plugin's node: what its body computes, on whom, and what stands in the file for TensorRT."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import gn_deploy as gn
from gn_deploy.parity.tolerance import bounds
from gn_deploy.plugin.function import QUANTIZE_SINCE, SINCE, function
from gn_deploy.plugin.node import ATTRIBUTES, DOMAIN, INPUTS, OPS
from gn_deploy.runtimes import RUNTIMES
from gn_deploy.sites import find
from gn_deploy.spec import Activation, GroupNormSpec
from tests.forms.writing import affine, written

Array = NDArray[np.generic]
DTYPES = {"float32": np.dtype("float32"), "float16": np.dtype("float16"), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
NEWEST = 25
SIZES = (5, 4, 3)


@dataclass(frozen=True)
class Case:
    """A node and what it is fed; ``free`` sizes are names in the file."""

    spec: GroupNormSpec
    modulated: tuple[bool, bool] = (False, False)
    keep_sum: bool = False
    free: bool = False
    narrow: bool = False
    """The residual is a number for each sample and channel, and s and t are the same for all samples."""
    opset: int = 21

    @property
    def operands(self) -> dict[str, tuple[int, ...]]:
        spec, shape = self.spec, self.shape
        rank = len(shape)
        axes = (0, spec.channel_axis % rank)
        small = tuple(n if i in axes else 1 for i, n in enumerate(shape))
        one = (1, *small[1:]) if self.narrow else small
        there = dict(zip(INPUTS[3:], (spec.residual, *self.modulated), strict=True))
        shapes = {"residual": small if self.narrow else shape, "modulation_scale": one, "modulation_shift": one}
        return {name: shapes[name] for name, has in there.items() if has}

    @property
    def shape(self) -> tuple[int, ...]:
        assert self.spec.rank is not None
        inner, channels = SIZES[: self.spec.rank - 2], self.spec.num_channels
        return (2, channels, *inner) if self.spec.channel_axis == 1 else (2, *inner, channels)

    def model(self, form: str = "plugin") -> ir.Model:
        names = dict(zip((2, *SIZES), "NHWD", strict=True))

        def declared(shape: tuple[int, ...]) -> list[int | str]:
            kept = self.spec.channel_axis % len(shape)
            return [names.get(n, n) if self.free and i != kept else n for i, n in enumerate(shape)]

        operands = {name: declared(shape) for name, shape in self.operands.items()}
        held = affine(self.spec, "both")
        made = written(form, self.spec, held, declared(self.shape), self.opset, operands, keep_sum=self.keep_sum)
        onnx.checker.check_model(ir.to_proto(made), full_check=True)
        return made

    def feeds(self) -> dict[str, Array]:
        rng = np.random.default_rng(7)
        dtype = DTYPES[self.spec.dtype]
        return {
            name: (rng.standard_normal(shape) * 2 + 1).astype(dtype)
            for name, shape in {"x": self.shape, **self.operands}.items()
        }

    def judge(self, answer: Mapping[str, Array], feeds: Mapping[str, Array]) -> None:
        """Against the float64 oracle, by the bound of the dtype."""
        around = {name: feeds[name].astype(np.float64) for name in self.operands}
        x = feeds["x"].astype(np.float64)
        for name in around.keys() - {"residual"}:
            rows = around[name].reshape(len(around[name]), -1)
            around[name] = np.broadcast_to(rows, (x.shape[0], rows.shape[1]))
        if "residual" in around:
            around["residual"] = np.broadcast_to(around["residual"], x.shape)
            total = (x + around["residual"]).astype(np.float32).astype(DTYPES[self.spec.dtype])
            if self.keep_sum:
                np.testing.assert_array_equal(answer["sum"].astype(np.float64), total.astype(np.float64))
        scale, bias = affine(self.spec, "both")
        assert scale is not None
        assert bias is not None
        limits = bounds(x, self.spec, scale.astype(np.float64), bias.astype(np.float64), **around)
        assert answer["y"].dtype == DTYPES[self.spec.dtype]
        assert answer["y"].shape == self.shape
        error = np.abs(answer["y"].astype(np.float64) - limits.reference)
        assert (error <= limits.two_pass).all(), float((error / limits.two_pass).max())


def spec(**options: object) -> GroupNormSpec:
    made = GroupNormSpec(4, 12, rank=4)
    told = replace(made, **options)  # type: ignore[arg-type]
    return replace(told, wide_affine=told.dtype != "float32")


def _every() -> Iterator[Case]:
    """Half of all combinations of activation, layout, residual, sum and modulation, each with each other one.

    Dtypes and free sizes are dealt over them.
    """
    options = itertools.product(enumerate(Activation), (1, -1), (0, 1, 2), itertools.product((False, True), repeat=2))
    for (i, activation), axis, kept, modulated in options:
        number = i + axis + kept + sum(modulated)
        dtype = [*DTYPES][(i + axis + 2 * kept) % 3]
        told = spec(
            dtype=dtype, channel_axis=axis, activation=activation, residual=kept > 0, scale_shift=any(modulated)
        )
        if number % 2:
            yield Case(told, modulated, keep_sum=kept == 2, free=number % 3 == 0)


ALL = tuple(_every())


@pytest.mark.parametrize("activation", list(Activation))
def test_the_body_computes_what_the_oracle_does(activation: Activation) -> None:
    """By onnx.reference, node by node; each file is found again as what was written."""
    for case in (c for c in ALL if c.spec.activation is activation):
        model, feeds = case.model(), case.feeds()
        (site,) = find(model).sites
        assert site.form == "plugin"
        assert site.spec == case.spec
        assert site.operands.keys() == case.operands.keys()
        assert (site.sum is not None) == case.keep_sum
        case.judge(RUNTIMES.require("onnx-reference").open(model).run(feeds), feeds)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_body_on_runtimes_that_have_no_plugin(runtime: str) -> None:
    """All kinds of nodes of a dtype in one file: they share two functions."""
    for dtype in ("float32", "float16"):
        cases = [replace(c, spec=spec(**{**_options(c.spec), "dtype": dtype})) for c in ALL[::5]]
        opened = RUNTIMES.require(runtime).open(_side_by_side([c.model() for c in cases]))
        try:
            feeds = [case.feeds() for case in cases]
            answer = opened.run({f"{name}_{i}": a for i, given_ in enumerate(feeds) for name, a in given_.items()})
        finally:
            opened.close()
        for i, (case, given_) in enumerate(zip(cases, feeds, strict=True)):
            case.judge({name: answer[f"{name}_{i}"] for name in ("y", "sum") if f"{name}_{i}" in answer}, given_)


def _options(told: GroupNormSpec) -> dict[str, object]:
    names = ("channel_axis", "activation", "residual", "scale_shift")
    return {name: getattr(told, name) for name in names}


def _side_by_side(models: list[ir.Model]) -> ir.Model:
    """One model of them all, each name with the number of its model behind it."""
    whole = models[0]
    for i, model in enumerate(models):
        for value in [*model.graph.inputs, *model.graph.initializers.values()]:
            value.name = f"{value.name}_{i}"
        for node in model.graph:
            node.name = f"{node.name}_{i}"
            for value in node.outputs:
                value.name = f"{value.name}_{i}"
    for model in models[1:]:
        graph = model.graph
        nodes, outputs, inputs = list(graph), list(graph.outputs), list(graph.inputs)
        held = list(graph.initializers.values())
        graph.outputs.clear()
        graph.inputs.clear()
        graph.initializers.clear()
        graph.remove(nodes)
        whole.graph.extend(nodes)
        whole.graph.inputs.extend(inputs)
        whole.graph.outputs.extend(outputs)
        for value in held:
            whole.graph.register_initializer(value)
        whole.functions.update({k: f for k, f in model.functions.items() if k not in whole.functions})
    return whole


@st.composite
def cases(draw: st.DrawFn) -> Case:
    groups = draw(st.sampled_from([1, 2, 3, 8]))
    dtype = draw(st.sampled_from([*DTYPES]))
    rank = draw(st.integers(2, 5))
    modulated = draw(st.tuples(st.booleans(), st.booleans()))
    residual = draw(st.booleans())
    told = GroupNormSpec(
        groups,
        groups * draw(st.integers(2, 4)),
        draw(st.sampled_from([1e-5, 1e-6, 1e-3])),
        rank=rank,
        dtype=dtype,
        channel_axis=draw(st.sampled_from([1, -1])) if rank > 2 else 1,
        activation=draw(st.sampled_from(Activation)),
        residual=residual,
        scale_shift=any(modulated),
        wide_affine=dtype != "float32",
    )
    keep_sum = residual and draw(st.booleans())
    opset = draw(st.integers(SINCE, NEWEST))
    narrow = rank > 2 and draw(st.booleans())
    return Case(told, modulated, keep_sum, draw(st.booleans()), narrow, opset)


@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_any_node_of_any_opset(case: Case) -> None:
    model, feeds = case.model(), case.feeds()
    (site,) = find(model).sites
    assert (site.form, site.spec) == ("plugin", case.spec)
    if not case.free:
        assert {name: tuple(v.shape or ()) for name, v in site.operands.items()} == case.operands
    case.judge(RUNTIMES.require("onnx-reference").open(model).run(feeds), feeds)


@pytest.mark.parametrize("op", OPS)
def test_the_body_says_the_same_at_every_opset(op: str) -> None:
    """So it stays right where a file's opset is changed."""
    first = QUANTIZE_SINCE if op.endswith("Quantize") else SINCE
    texts = set()
    for opset in range(first, NEWEST + 1):
        proto = ir.to_proto(function(op, opset))
        assert [i.version for i in proto.opset_import if not i.domain] == [opset]
        del proto.opset_import[:]
        texts.add(proto.SerializeToString(deterministic=True))
    assert len(texts) == 1


def test_what_tensorrt_reads_is_all_there() -> None:
    """It knows no defaults, and finds a plugin by the name of the operator and these two attributes."""
    case = Case(spec(residual=True, scale_shift=True, activation=Activation.SILU), (True, False), keep_sum=True)
    (node,) = (n for n in ir.to_proto(case.model()).graph.node if n.domain == DOMAIN)
    told = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert told.keys() >= ATTRIBUTES.keys()
    assert (told["plugin_namespace"], told["plugin_version"]) == (b"gn_deploy", b"1")
    assert (told["num_groups"], told["activation"], told["channels_last"]) == (4, b"silu", 0)
    flags = ("residual", "modulation_scale", "modulation_shift", "sum")
    assert [told[name] for name in flags] == [1, 1, 0, 1]
    assert (node.op_type, len(node.input), len(node.output)) == ("SkipGroupNorm", len(INPUTS), 2)
    assert np.float32(told["epsilon"]) == np.float32(1e-5)


def test_parameters_are_float32_where_half_would_round_them() -> None:
    exact = spec(dtype="float16")
    for scale, wanted in ((np.linspace(1, 12, 12), "float16"), (np.linspace(0.1, 1.3, 12), "float32")):
        held = (scale.astype(np.float32), None)
        modulated = replace(exact, scale_shift=True)
        model = written("plugin", modulated, held, (2, 12, 5, 4), 21, {"modulation_shift": (2, 12, 1, 1)})
        (node,) = (n for n in model.graph if n.domain == DOMAIN)
        types = [v.dtype for v in node.inputs if v is not None]
        assert [str(types[i].numpy()) for i in (1, 2, 4, 5)] == [wanted] * 4  # type: ignore[union-attr]
        assert str(types[0].numpy()) == str(types[3].numpy()) == "float16"  # type: ignore[union-attr]
        (site,) = find(model).sites
        assert site.operands["modulation_shift"].name == "modulation_shift"  # not what it is cast to
        assert site.scale is not None
        np.testing.assert_array_equal(site.scale.array, held[0].astype(wanted))


def test_a_file_without_a_body_is_for_onnx_runtimes_tensorrt_provider() -> None:
    case = Case(spec(activation=Activation.GELU))
    model = case.model("trt_plugins")
    assert not model.functions
    assert [n.domain for n in model.graph] == ["trt.plugins"]
    (site,) = find(model).sites
    assert (site.form, site.spec) == ("trt_plugins", case.spec)
    lowered = gn.lower(model, "tensorrt+plugin").model
    assert [n.domain for n in lowered.graph] == [DOMAIN]
    assert [key[1] for key in lowered.functions] == ["GroupNorm"]
