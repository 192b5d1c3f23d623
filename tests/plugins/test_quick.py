"""The plugin without a library, asked by NVIDIA's own ``tensorrt.plugin`` as TensorRT would ask it."""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from gn_deploy.errors import InputError, UnavailableError
from gn_deploy.plugin import nvrtc, quick
from gn_deploy.plugin.binding import VARIANTS
from gn_deploy.plugin.node import ATTRIBUTES, OPS
from gn_deploy.plugin.problem import DEVICES, Problem
from gn_deploy.plugin.select import select
from gn_deploy.plugin.specialise import Specialised
from tests.plugins import tensorrt_stand_in
from tests.plugins.tensorrt_stand_in import DataType, Input, Kernel

H200 = DEVICES["H200"]
TYPES = {"float32": DataType.FLOAT, "float16": DataType.HALF, "bfloat16": DataType.BF16}


@pytest.fixture
def trt() -> Iterator[Any]:
    """TensorRT with the plugin registered for an H200. Its kernels are not compiled: their code is their source."""
    with tensorrt_stand_in.installed() as module, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Specialised, "compile", lambda self, capability: f"// sm_{capability}\n{self.source()}")
        patch.setattr(nvrtc, "version", lambda: (13, 0))
        quick.register(H200)
        yield module


def asked(trt: Any, shape: tuple[int, ...], dtype: str = "float16", parameters: str = "", **node: Any) -> list[Kernel]:
    """Kernels for a node; ``smallest``, ``usual``, ``largest`` are sizes for the -1 in ``shape``, in their order."""
    told = {name: node.pop(name) for name in ("smallest", "usual", "largest") if name in node}
    attributes = {**ATTRIBUTES, **node}
    op = node.pop("op", ("Skip" if attributes["sum"] else "") + "GroupNorm")
    op += "Quantize" if attributes["output_type"] != "x" else ""

    def bounds(of: tuple[int, ...]) -> Any:
        return tuple(_filled(of, sizes) for sizes in told.values()) if told else None

    kind = TYPES[parameters or dtype]
    channels = shape[-1 if attributes["channels_last"] else 1]
    each = (shape[0], channels)
    residual = shape if attributes["residual"] else (1,)
    inputs = [Input(TYPES[dtype], shape, bounds(shape)), Input(kind, (channels,)), Input(kind, (channels,))]
    inputs.append(Input(TYPES[dtype], residual, bounds(residual)))
    for name in ("modulation_scale", "modulation_shift"):
        of = each if attributes[name] else (1, channels)
        inputs.append(Input(kind, of, bounds(of)))
    return tensorrt_stand_in.build(trt, op, attributes, inputs)


def _filled(shape: tuple[int, ...], sizes: tuple[int, ...]) -> tuple[int, ...]:
    given = iter(sizes)
    return tuple(next(given) if size < 0 else size for size in shape)


def test_every_op_is_known_to_tensorrt_once(trt: Any) -> None:
    quick.register(H200)
    creators = trt.get_plugin_registry().creators
    assert set(creators) == {(op, "1", "gn_deploy") for op in OPS}
    assert [f.name for f in creators["GroupNorm", "1", "gn_deploy"].field_names] == list(ATTRIBUTES)


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ((2, 320, 64, 64), Problem(2, 320, 4096, 32)),
        ((8, 256, 7, 10), Problem(8, 256, 70, 32)),
        ((1, 128, 24), Problem(1, 128, 24, 32)),
    ],
)
def test_the_launch_is_what_the_choice_says(trt: Any, shape: tuple[int, ...], problem: Problem) -> None:
    linear = [k for k in asked(trt, shape, num_groups=32) if k.formats[0].name == "LINEAR"]
    suited = [v for v in quick.FITTING if not isinstance(select(problem, H200, v), quick.Rejected)]
    assert [VARIANTS[k.tactic - 1] for k in linear] == suited
    for kernel in linear:
        choice = select(problem, H200, VARIANTS[kernel.tactic - 1]).choice  # type: ignore[union-attr]
        sizes = {"grid_x": choice.blocks, "block_x": choice.threads, "shared_mem": choice.shared}
        others = dict.fromkeys(("grid_y", "grid_z", "block_y", "block_z"), 1)
        assert kernel.launch([shape]) == {**sizes, **others}
        assert kernel.scalars([shape]) == ()
        assert ("__cluster_dims__" in kernel.code) == (choice.variant == "cluster")
        assert kernel.code.startswith("// sm_90")


def test_formats_with_the_channels_last_are_offered_where_they_fit(trt: Any) -> None:
    def offered(shape: tuple[int, ...], dtype: str = "float16", **node: Any) -> set[tuple[str, ...]]:
        return {tuple(f.name for f in k.formats) for k in asked(trt, shape, dtype, num_groups=8, **node)}

    one, few = ("LINEAR",), ("LINEAR", "LINEAR")
    for name, shape, dtype in (
        ("HWC8", (2, 24, 8, 8), "float16"),
        ("HWC16", (2, 24, 8, 8), "float16"),
        ("HWC8", (2, 24, 8, 8), "bfloat16"),
        ("HWC", (2, 24, 8, 8), "float32"),
        ("DHWC8", (2, 24, 4, 8, 8), "bfloat16"),
        ("DHWC", (2, 24, 4, 8, 8), "float32"),
    ):
        last = (name,)
        assert last + few + one + few + last in offered(shape, dtype)
        assert last + few + last + few + last + last in offered(shape, dtype, residual=1, sum=1)
    assert offered((2, 24, 8)) == offered((2, 8, 8, 24), channels_last=1) == {("LINEAR",) * 7}
    padded = next(k for k in asked(trt, (2, 24, 8, 8), num_groups=8) if k.formats[0].name == "HWC16")
    assert "/* pitch */ 32," in padded.code
    assert "/* layout */ 1," in padded.code


def test_the_grid_follows_the_batch_and_the_kernel_is_told(trt: Any) -> None:
    sizes = {"smallest": (1,), "usual": (2,), "largest": (16,)}
    kernels = asked(trt, (-1, 64, 4, 4), num_groups=8, **sizes)
    assert {k.tactic for k in kernels if k.formats[0].name == "LINEAR"} >= {1, 2}
    for kernel in kernels:
        at_two = kernel.launch([(2, 64, 4, 4)])["grid_x"]
        for samples in (1, 2, 3, 16):
            shapes = [(samples, 64, 4, 4)]
            assert kernel.scalars(shapes) == (samples,)
            assert kernel.launch(shapes)["grid_x"] >= at_two * samples / 2
            assert kernel.launch(shapes)["grid_x"] - at_two * samples / 2 < 1, "a warp's last block may be half empty"


def test_spatial_sizes_may_be_unknown_up_to_what_one_launch_holds(trt: Any) -> None:
    sizes = {"smallest": (1, 1, 1), "usual": (2, 8, 8), "largest": (4, 32, 40)}
    kernels = asked(trt, (-1, 64, -1, -1), num_groups=8, **sizes)
    linear = {VARIANTS[k.tactic - 1]: k for k in kernels if k.formats[0].name == "LINEAR"}
    assert linear.keys() == {"block", "cluster"}
    for variant, kernel in linear.items():
        assert kernel.scalars([(3, 64, 5, 7)]) == (3, 35)
        largest = select(Problem(2, 64, 32 * 40, 8), H200, variant)
        assert kernel.launch([(2, 64, 32, 40)])["grid_x"] == largest.choice.blocks  # type: ignore[union-attr]
        assert kernel.launch([(2, 64, 32, 40)])["shared_mem"] >= largest.choice.shared  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("shape", "node", "why"),
    [
        ((1, 64, 1024, 1024), {"num_groups": 8}, "block: a unit of 16 MB does not fit 80 KB.*gn-deploy plugin build"),
        ((1, 64, 8, 8), {"num_groups": 7}, "64 channels do not divide into 7 groups"),
        ((0, 64, 8, 8), {"num_groups": 8}, "without elements"),
        ((2, 64, 8, 8), {"num_groups": 8, "activation": "swish"}, "activation is 'swish'.*one of none, relu, silu"),
        ((2, 64, 8, 8), {"num_groups": 8, "sum": 1}, "sum is 1 without a residual"),
        ((2, 64, 8, 8), {"num_groups": 8, "op": "SkipGroupNorm"}, "sum=0, output_type=x: another op does that"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_built_is_refused_with_the_reason(trt: Any, shape: Any, node: Any, why: str) -> None:
    with pytest.raises(InputError, match=why):
        asked(trt, shape, **node)


def test_channels_must_be_known(trt: Any) -> None:
    unknown = Input(DataType.HALF, (2, -1, 8, 8), ((2, 8, 8, 8), (2, 8, 8, 8), (2, 8, 8, 8)))
    rest = [Input(DataType.HALF, (8,)), Input(DataType.HALF, (8,)), Input(DataType.HALF, (1,))]
    inputs = [unknown, *rest, *[Input(DataType.HALF, (1, 8))] * 2]
    with pytest.raises(InputError, match="number of channels is not known"):
        tensorrt_stand_in.build(trt, "GroupNorm", {**ATTRIBUTES, "num_groups": 8}, inputs)


def test_an_attribute_that_a_node_does_not_write_is_missed(trt: Any) -> None:
    """TensorRT knows no defaults: the form ``plugin`` writes every attribute."""
    attributes = {name: value for name, value in ATTRIBUTES.items() if name != "epsilon"}
    given = [Input(DataType.HALF, s) for s in ((2, 8, 4), (8,), (8,), (1,), (1, 8), (1, 8))]
    with pytest.raises(InputError, match="epsilon is missing"):
        tensorrt_stand_in.build(trt, "GroupNorm", {**attributes, "num_groups": 8}, given)


def test_numbers_of_the_node_are_constants_of_the_kernel(trt: Any) -> None:
    kernel = asked(trt, (2, 64, 4, 4), "float32", num_groups=8, epsilon=1e-6, activation="gelu_tanh")[0]
    assert f"/* epsilon */ {float(np.float32(1e-6)).hex()}f" in kernel.code
    assert "/* activation */ 5," in kernel.code


def test_a_quantized_result_has_its_type(trt: Any) -> None:
    for output_type, dtype in (("int8", DataType.INT8), ("float8e4m3fn", DataType.FP8)):
        node = {"num_groups": 8, "output_type": output_type, "output_scale": 0.05}
        kernels = asked(trt, (2, 64, 4, 4), **node, residual=1, sum=1)
        assert {k.types[6:] for k in kernels} == {(dtype, DataType.HALF)}
        assert {f.name for k in kernels for f in k.formats} == {"LINEAR"}


def test_without_tensorrt_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "version", lambda: (13, 0))
    for name in ("tensorrt", "tensorrt.plugin"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UnavailableError, match=r"no TensorRT with quick plugins.*TensorRT 10\.9 or later"):
        quick.register(H200)
