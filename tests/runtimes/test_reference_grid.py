"""GridSample against torch in float64."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from gn_deploy.runtimes import RUNTIMES


@pytest.mark.parametrize("align", [0, 1])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize(
    ("mode", "sizes"), [("linear", (5, 4)), ("nearest", (5, 4)), ("cubic", (5, 4)), ("linear", (3, 5, 4))]
)
def test_it_is_torchs(mode: str, sizes: tuple[int, ...], padding: str, align: int) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    x, grid = rng.standard_normal((2, 3, *sizes)), rng.uniform(-1.6, 1.6, (2, *sizes[::-1], len(sizes)))
    attributes = {"mode": mode, "padding_mode": padding, "align_corners": align}
    node = onnx.helper.make_node("GridSample", ["x", "g"], ["y"], **attributes)
    ranks = {"x": x.ndim, "g": grid.ndim, "y": x.ndim}
    info = [onnx.helper.make_tensor_value_info(name, 1, [None] * rank) for name, rank in ranks.items()]
    graph = onnx.helper.make_graph([node], "g", info[:2], info[2:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    session = RUNTIMES.require("onnx-reference").open(ir.from_proto(model), precision="float64")
    names = {"linear": "bilinear", "cubic": "bicubic"}
    wanted = torch.nn.functional.grid_sample(
        torch.from_numpy(x), torch.from_numpy(grid), names.get(mode, mode), padding, align_corners=bool(align)
    )
    y = session.run({"x": x, "g": grid})["y"]
    np.testing.assert_allclose(y, wanted.numpy(), rtol=0, atol=1e-13)  # a dozen operations on numbers below 10
