"""The exported model has the module's names, source lines and memory, and computes what the module computes."""

import math

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import Tensor, nn

from gn_deploy.errors import InputError
from gn_deploy.exporters.torch import DYNAMIC_KEY, export


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.GroupNorm(4, 16)
        self.dropout = nn.Dropout(0.5)
        self.mix = nn.Linear(16, 8)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, image: Tensor) -> Tensor:
        y = self.dropout(nn.functional.silu(self.norm(self.conv(image))))
        return self.mix(y.flatten(2).transpose(1, 2))  # 3-D Linear: its weight stands behind a Transpose


class Flattened(nn.Module):
    """Takes 8 x 8 only, which torch.export alone does not notice."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, 4)
        self.classify = nn.Linear(4 * 8 * 8, 3)

    def forward(self, image: Tensor) -> Tensor:
        return self.classify(self.norm(image).flatten(1))


class Masked(nn.Module):
    def forward(self, image: Tensor, mask: Tensor) -> dict[str, Tensor]:
        return {"masked": image * mask, "mean": image.mean((2, 3))}


class Fork(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


@pytest.fixture(scope="module")
def block() -> Block:
    torch.manual_seed(0)
    return Block().train()


@pytest.fixture(scope="module")
def exported(block: Block) -> ir.Model:
    return export(block, torch.randn(1, 3, 8, 8))


def run(model: ir.Model, *arrays: np.ndarray) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, arrays, strict=True)))


def test_every_weight_is_the_modules_memory_under_its_own_name(block: Block, exported: ir.Model) -> None:
    own = dict(block.named_parameters())
    shared = {
        name: value.const_value.raw.data_ptr() for name, value in exported.graph.initializers.items() if name in own
    }
    assert shared == {name: parameter.data_ptr() for name, parameter in own.items()}
    others = [value.const_value for name, value in exported.graph.initializers.items() if name not in own]
    assert sum(math.prod(tensor.shape) for tensor in others) < 64  # shapes and axes only: no copy of a weight hides


def test_modes_are_put_back_and_dropout_is_off(block: Block, exported: ir.Model) -> None:
    assert all(module.training for module in block.modules())
    assert "Dropout" not in {node.op_type for node in exported.graph}


def test_nodes_tell_module_and_source_line(exported: ir.Model) -> None:
    norm = next(node for node in exported.graph if node.op_type == "InstanceNormalization")
    assert norm.metadata_props["pkg.torch.onnx.name_scopes"] == "['', 'norm', 'group_norm']"
    assert "self.norm(self.conv(image))" in norm.metadata_props["pkg.torch.onnx.stack_trace"]


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (2, 3, 8, 8), (3, 3, 5, 11), (1, 3, 16, 1)])
def test_any_batch_and_size_gives_the_modules_numbers(block: Block, exported: ir.Model, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = Block.forward(block.eval(), x).numpy()
    block.train()
    (actual,) = run(exported, x.numpy())
    # outputs are of order 1; both sides sum at most 16 * 27 float32 products
    np.testing.assert_allclose(actual, expected, atol=1e-5, rtol=0)


def test_signature_is_recorded(exported: ir.Model) -> None:
    assert exported.metadata_props[DYNAMIC_KEY] == "image[batch, 3, height, width]"
    assert [value.name for value in exported.graph.outputs] == ["output"]
    assert exported.opset_imports[""] == 20


def test_sizes_the_module_refuses_stay_fixed_and_the_reason_is_recorded() -> None:
    model = export(Flattened(), torch.randn(1, 4, 8, 8))
    shape, _, reason = model.metadata_props[DYNAMIC_KEY].partition("; ")
    assert shape == "image[batch, 4, 8, 8]"
    assert "(4, 4, 16, 16)" in reason


def test_dynamic_false_fixes_everything() -> None:
    model = export(nn.GroupNorm(2, 4), torch.randn(1, 4, 8), dynamic=False)
    assert model.metadata_props[DYNAMIC_KEY] == "input[1, 4, 8]"


def test_asked_sizes_are_exactly_the_free_ones() -> None:
    model = export(nn.GroupNorm(2, 4), torch.randn(2, 4, 6, 6), dynamic={"input": {3: "columns"}})
    assert model.metadata_props[DYNAMIC_KEY] == "input[2, 4, 6, columns]"


def test_dict_inputs_follow_forward_and_dict_outputs_keep_their_keys() -> None:
    inputs = {"mask": torch.ones(2, 1, 4, 4), "image": torch.randn(2, 3, 4, 4)}
    model = export(Masked(), inputs)
    assert [value.name for value in model.graph.inputs] == ["image", "mask"]
    assert [value.name for value in model.graph.outputs] == ["masked", "mean"]
    x = np.random.default_rng(0).normal(size=(5, 3, 7, 2)).astype(np.float32)
    masked, mean = run(model, x, np.full((5, 1, 7, 2), 0.5, np.float32))
    np.testing.assert_array_equal(masked, x / 2)
    np.testing.assert_allclose(mean, x.mean((2, 3)), atol=1e-6)  # 14 float32 summands of order 1


def test_names_can_be_given() -> None:
    model = export(nn.GroupNorm(2, 4), torch.randn(2, 4, 6), input_names=["x"], output_names=["y"])
    assert ([v.name for v in model.graph.inputs], [v.name for v in model.graph.outputs]) == (["x"], ["y"])


def test_opset_21_writes_the_op_itself() -> None:
    model = export(nn.GroupNorm(2, 4), torch.randn(2, 4, 6), opset=21)
    assert [node.op_type for node in model.graph] == ["GroupNormalization"]


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    export(nn.GroupNorm(2, 4), torch.randn(2, 4, 6))
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


@pytest.mark.parametrize(
    ("module", "examples", "options", "message"),
    [
        (Fork(), torch.randn(1, 3), {}, "data-dependent"),
        (Masked(), torch.randn(1, 3, 4, 4), {}, "missing 1 required positional argument: 'mask'"),
        (Masked(), {"mask": torch.randn(1)}, {}, "'image', which comes before it"),
        (Masked(), {"imag": torch.randn(1)}, {}, "no positional parameter 'imag'"),
        (Masked(), (torch.randn(1, 3, 4, 4), 2), {}, "'mask' is a int, not a tensor"),
        (Masked(), (), {}, "no example inputs"),
        (Masked(), 3, {}, "a int, not a tuple or dict"),
        (nn.GroupNorm(2, 4), torch.randn(1, 4, 4), {"dynamic": {"inptu": {0: "batch"}}}, "'inptu', which is not"),
        (nn.GroupNorm(2, 4), torch.randn(1, 4, 4), {"dynamic": {"input": (0, 2)}}, "are a tuple, not {axis: name}"),
        (nn.GroupNorm(2, 4), torch.randn(1, 4, 4), {"dynamic": {"input": {3: "depth"}}}, "none is numbered 3"),
        (nn.GroupNorm(2, 4), torch.randn(1, 4, 4), {"dynamic": {"input": {1: "c"}}}, "torch.onnx.export failed"),
        (nn.GroupNorm(2, 4), torch.randn(1, 4, 4), {"opset": 99}, "at opset 99"),
        (nn.GroupNorm(2, 4), torch.randn(1, 4, 4), {"output_names": ["a", "b"]}, "2 output names for 1"),
        (nn.GroupNorm(2, 5 * 2), torch.randn(1, 4, 4), {}, "fails on its own example inputs"),
    ],
)
def test_a_users_mistake_is_one_line(module: nn.Module, examples: object, options: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        export(module, examples, **options)
    assert message in caught.value.message
    assert "\n" not in str(caught.value)


def test_failure_names_the_users_line() -> None:
    with pytest.raises(InputError, match=r"\(test_torch\.py line \d+\)"):
        export(Fork(), torch.randn(1, 3))
