"""Where a node came from: torch's scopes and stack traces, TorchScript's names, and our own stamps."""

import json
from pathlib import Path

import onnx_ir as ir
import pytest
import torch

from gn_deploy.graph.provenance import module_path, source_line, stamp_model, stamp_node


def node(name: str = "", **torch_says: str) -> ir.Node:
    notes = {f"pkg.torch.onnx.{key}": value for key, value in torch_says.items()}
    return ir.Node("", "Add", [], name=name, metadata_props=notes)


class Block(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm2 = torch.nn.GroupNorm(2, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm2(x) + x


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = torch.nn.Sequential(Block(), Block())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.down(x)
        return torch.nn.functional.group_norm(y, 2)


@pytest.fixture(scope="module")
def exported() -> ir.Model:
    program = torch.onnx.export(Net().eval(), (torch.ones(1, 4, 3, 3),), dynamo=True, opset_version=21, verbose=False)
    assert program is not None
    return program.model


def test_what_torch_export_really_writes(exported: ir.Model) -> None:
    lines = Path(__file__).read_text().splitlines()
    in_block = 1 + lines.index("        return self.norm2(x) + x")
    in_net = 1 + lines.index("        return torch.nn.functional.group_norm(y, 2)")
    found = [(module_path(n), source_line(n)) for n in exported.graph if n.op_type == "GroupNormalization"]
    assert found == [
        ("down.0.norm2", f"test_provenance.py:{in_block}"),
        ("down.1.norm2", f"test_provenance.py:{in_block}"),
        ("", f"test_provenance.py:{in_net}"),
    ]
    adds = [module_path(n) for n in exported.graph if n.op_type == "Add"]
    assert adds == ["down.0", "down.1"]


@pytest.mark.parametrize(
    ("scopes", "path"),
    [
        ("['', 'down', 'down.1', 'down.1.norm2', 'group_norm']", "down.1.norm2"),
        ("['', 'down.1.norm2@1', 'group_norm_1']", "down.1.norm2"),
        ("['', 'add']", ""),
        ("['add']", ""),
        ("[]", ""),
        ("not a list", ""),
        ("{'a': 1}", ""),
        ("['unclosed", ""),
    ],
)
def test_scopes(scopes: str, path: str) -> None:
    assert module_path(node(name_scopes=scopes)) == path


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("/down.1/norm2/InstanceNormalization", "down.1.norm2"),
        ("/layer1/layer1.0/downsample/downsample.1/Add_1", "layer1.0.downsample.1"),
        ("/net/net.0/net.0.1/Mul", "net.0.1"),
        ("/Add", ""),
        ("Add_12", ""),
        ("model/group_norm/add", ""),
        ("", ""),
    ],
)
def test_names_of_torchscript(name: str, path: str) -> None:
    assert module_path(node(name)) == path


def test_the_innermost_frame_outside_torch_is_shown() -> None:
    trace = (
        'File "/home/me/train.py", line 3, in <module>\n    net(x)\n'
        'File "/home/me/site-packages/diffusers/models/unet.py", line 88, in forward\n    h = self.norm2(h)\n'
        'File "/venv/site-packages/torch/nn/modules/normalization.py", line 334, in forward\n'
        'File "/venv/site-packages/torch/_ops.py", line 1, in __call__'
    )
    assert source_line(node(stack_trace=trace)) == "unet.py:88"
    assert source_line(node(stack_trace='File "C:\\\\me\\\\net.py", line 7, in forward')) == "net.py:7"
    assert source_line(node(stack_trace='File "/x/torch/nn/functional.py", line 7, in relu')) == ""
    assert source_line(node()) == ""


def test_stamps_say_what_stood_there_and_inherit_what_the_exporter_said() -> None:
    old = [node(name_scopes="['', 'n', 'group_norm']", stack_trace='File "a.py", line 1, in f'), node()]
    old[0].metadata_props["gn_deploy.form"] = "earlier"
    new = ir.Node("", "GroupNormalization", [], metadata_props={"own": "kept"})
    for _ in range(2):
        stamp_node(new, "native", "instance_norm", old)
        assert (module_path(new), source_line(new)) == ("n", "a.py:1")
        assert {k: v for k, v in new.metadata_props.items() if not k.startswith("pkg.")} == {
            "own": "kept",
            "gn_deploy.form": "native",
            "gn_deploy.was": "instance_norm: Add, Add",
        }


def test_the_model_is_stamped(exported: ir.Model) -> None:
    for _ in range(2):
        stamp_model(exported, "tensorrt:fp16+native")
    ours = {k: v for k, v in exported.metadata_props.items() if k.startswith("gn_deploy.")}
    assert set(ours) == {"gn_deploy.version", "gn_deploy.target"}
    assert ours["gn_deploy.target"] == "tensorrt:fp16+native"
    json.dumps(ours)
