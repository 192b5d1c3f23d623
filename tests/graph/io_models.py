"""Small models and checks that the tests of graph.io share."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from gn_deploy.errors import InputError

RELU = '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y) { t = Relu(x) y = Neg(t) }'


def parse(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(text)


def refused(action: Callable[[], object], *words: str) -> InputError:
    """Calls ``action``; its InputError, one line that has every one of ``words`` in message or hint."""
    with pytest.raises(InputError) as caught:
        action()
    error = caught.value
    assert "\n" not in str(error)
    for word in words:
        assert word in str(error), str(error)
    return error


def weighted(*sizes: int) -> onnx.ModelProto:
    """y = x + w0 + w1 + ..., each weight a float32 vector of that many distinct numbers."""
    names = ["x", *(f"s{k}" for k in range(len(sizes)))]
    nodes = [helper.make_node("Add", [names[k], f"w{k}"], [names[k + 1]], name=f"n{k}") for k in range(len(sizes))]
    weights = [numpy_helper.from_array(np.arange(size, dtype=np.float32) + k, f"w{k}") for k, size in enumerate(sizes)]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"]) for name in (names[0], names[-1]))
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_external(folder: Path, *sizes: int, location: str = "model.onnx_data") -> Path:
    """``weighted`` as folder/model.onnx, all weights in folder/``location``."""
    path = folder / "model.onnx"
    onnx.save(weighted(*sizes), path, save_as_external_data=True, location=location, size_threshold=0)
    return path
