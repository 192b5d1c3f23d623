"""Our NumPy operators against ONNX Runtime, which shares no code with them."""

import time
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator

from gn_deploy.runtimes import RUNTIMES
from tests.runtimes.small_models import ELEMENT, model_of, relative_error

REFERENCE, ORT = RUNTIMES.require("onnx-reference"), RUNTIMES.require("onnxruntime")


def agree(op: str, feeds: dict[str, np.ndarray], limit: float = 1e-5, opset: int = 21, **attributes) -> None:
    """limit: float32 sums of a few hundred terms, added in different orders."""
    node = helper.make_node(op, list(feeds), ["y"], **attributes)
    inputs = {name: (helper.np_dtype_to_tensor_dtype(array.dtype), array.shape) for name, array in feeds.items()}
    model = model_of([node], inputs, {"y": ELEMENT["float32"][0]}, opset=opset)
    ours, theirs = (runtime.open(model).run(feeds)["y"] for runtime in (REFERENCE, ORT))
    assert ours.shape == theirs.shape
    assert relative_error(ours, theirs.astype(np.float64)) < limit


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    rank=st.integers(1, 3),
    groups=st.sampled_from([1, 2]),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    pads=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    bias=st.booleans(),
    transposed=st.booleans(),
)
def test_convolutions(rank, groups, kernel, stride, dilation, pads, bias, transposed) -> None:
    before, after = pads
    feeds = {
        "x": normal(2, 4, *[7, 8, 9][:rank]),
        "w": normal(*((4, 3) if transposed else (6, 4 // groups)), *[kernel] * rank),
    }
    if bias:
        feeds["b"] = normal(3 * groups if transposed else 6)
    agree(
        "ConvTranspose" if transposed else "Conv",
        feeds,
        group=groups,
        strides=[stride] * rank,
        dilations=[dilation] * rank,
        pads=[before] * rank + [after] * rank,
    )


def test_convolutions_left_to_onnx_reference() -> None:
    x, w = normal(1, 4, 9, 9), normal(4, 4, 3, 3)
    agree("Conv", {"x": x, "w": w}, auto_pad="SAME_UPPER", strides=[2, 2])
    agree("ConvTranspose", {"x": x, "w": w}, strides=[2, 2], output_padding=[1, 1])
    agree("Conv", {"x": x, "w": normal(4, 1, 3, 3)}, group=4)


@settings(max_examples=30, deadline=None)
@given(
    op=st.sampled_from(["MaxPool", "AveragePool"]),
    kernel=st.integers(2, 3),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    pad=st.integers(0, 1),
    include=st.integers(0, 1),
    ceil=st.integers(0, 1),
)
def test_pooling(op, kernel, stride, dilation, pad, include, ceil) -> None:
    attributes = {"count_include_pad": include} if op == "AveragePool" else {}
    if ceil and pad:
        return  # onnx.reference and ONNX Runtime disagree on windows that start in the padding
    agree(
        op,
        {"x": normal(2, 3, 9, 9)},
        kernel_shape=[kernel] * 2,
        strides=[stride] * 2,
        dilations=[1 if ceil else dilation] * 2,
        pads=[pad] * 4,
        ceil_mode=ceil,
        **attributes,
    )


@pytest.mark.parametrize(
    "op", ["Erf", "Gelu", "HardSwish", "Sigmoid", "GlobalAveragePool", "MeanVarianceNormalization"]
)
def test_pointwise_and_global(op: str) -> None:
    agree(op, {"x": normal(2, 3, 9, 9)})


def test_gelu_tanh_rms_norm_and_gemm() -> None:
    agree("Gelu", {"x": normal(64)}, approximate="tanh")
    agree("RMSNormalization", {"x": normal(4, 32), "w": normal(32)}, opset=23)
    agree("Gemm", {"a": normal(5, 7), "b": normal(3, 7), "c": normal(3)}, transB=1, alpha=0.5, beta=2.0)


def test_erf_of_doubles_is_a_double() -> None:
    import math

    x = np.linspace(-3, 3, 101)
    node = helper.make_node("Erf", ["x"], ["y"])
    y = REFERENCE.open(model_of([node], {"x": (ELEMENT["float64"][0], (101,))}, {"y": ELEMENT["float64"][0]})).run(
        {"x": x}
    )
    np.testing.assert_array_equal(y["y"], [math.erf(v) for v in x])


def test_max_pool_with_indices() -> None:
    node = helper.make_node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2], strides=[2, 2])
    model = model_of([node], {"x": (1, (1, 2, 6, 6))}, {"y": 1, "i": 7})
    feeds = {"x": normal(1, 2, 6, 6)}
    ours, theirs = (runtime.open(model).run(feeds) for runtime in (REFERENCE, ORT))
    np.testing.assert_array_equal(ours["y"], theirs["y"])
    np.testing.assert_array_equal(ours["i"], theirs["i"])


def test_transposed_convolution_is_not_hopeless() -> None:
    """Against onnx.reference's own, 50 times slower here, in turn: so that a busy machine slows both."""
    feeds = {"x": normal(1, 32, 16, 16), "w": normal(32, 32, 4, 4)}
    node = helper.make_node("ConvTranspose", list(feeds), ["y"], strides=[2, 2], pads=[1, 1, 1, 1])
    model = model_of([node], {n: (1, a.shape) for n, a in feeds.items()}, {"y": 1})
    ours, theirs = REFERENCE.open(model), ReferenceEvaluator(ir.to_proto(model))

    def seconds(run: Callable[[], object]) -> float:
        start = time.perf_counter()
        run()
        return time.perf_counter() - start

    turns = [(seconds(lambda: ours.run(feeds)), seconds(lambda: theirs.run(None, feeds))) for _ in range(3)]
    assert min(mine for mine, _ in turns) < min(other for _, other in turns) / 5


def test_sums_after_a_transpose_are_those_of_a_tensor_that_lies_so() -> None:
    """On a constant image one accumulator errs by 16 units where NumPy's pairwise sum errs by 2."""
    x = np.full((2, 120, 3), 6.8256593, np.float32)
    mean = helper.make_node("ReduceMean", ["t"], ["y"], axes=[2])
    turn = helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1])
    element = ELEMENT["float32"][0]
    turned = model_of([turn, mean], {"x": (element, x.shape)}, {"y": element}, opset=17)
    straight = model_of([mean], {"t": (element, (2, 3, 120))}, {"y": element}, opset=17)
    lying = np.transpose(x, (0, 2, 1)).copy()
    answers = REFERENCE.open(turned).run({"x": x})["y"], REFERENCE.open(straight).run({"t": lying})["y"]
    np.testing.assert_array_equal(*answers)
    assert relative_error(answers[0], lying.astype(np.float64).mean(2, keepdims=True)) < 4 * 2**-24
