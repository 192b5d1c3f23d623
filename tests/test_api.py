"""The five public verbs, as a user of the library calls them."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

import gn_deploy as gn
from gn_deploy.errors import InputError, ParityError
from gn_deploy.spec import GroupNormSpec
from tests.forms.writing import affine, write

SPEC = GroupNormSpec(4, 8, rank=4)


@pytest.fixture
def model() -> ir.Model:
    return write("instance_norm", SPEC, *affine(SPEC, "both"), ["N", 8, "H", "W"], 18)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.GroupNorm(4, 8)
        nn.init.normal_(self.norm.weight)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.silu(self.norm(self.conv(x)))


def test_find_takes_what_people_have_and_changes_none_of_it(model: ir.Model, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    proto = ir.to_proto(model)
    onnx.save(proto, path)
    before = path.read_bytes()
    for source in (path, str(path), proto, model):
        (site,) = gn.find(source)
        assert (site.form, site.spec.num_groups, site.spec.num_channels, site.spec.epsilon) == (
            "instance_norm",
            4,
            8,
            1e-5,
        )
    assert path.read_bytes() == before == proto.SerializeToString() == ir.to_proto(model).SerializeToString()


def test_lower_returns_the_model_and_the_decisions(model: ir.Model, tmp_path: Path) -> None:
    before = ir.to_proto(model).SerializeToString()
    lowered, decisions = gn.lower(model, "onnx+native", out=tmp_path / "out.onnx", verify=True)
    assert [d.wrote for d in decisions] == ["native"]
    assert [n.op_type for n in lowered.graph] == ["GroupNormalization"]
    assert [s.form for s in gn.find(tmp_path / "out.onnx")] == ["native"]
    assert ir.to_proto(model).SerializeToString() == before


def test_an_unknown_form_names_the_nearest(model: ir.Model) -> None:
    with pytest.raises(InputError) as caught:
        gn.lower(model, "onnx+nativ")
    assert "did you mean 'native" in caught.value.hint


def test_compare_holds_for_right_spellings_and_breaks_for_a_changed_epsilon(model: ir.Model) -> None:
    for form in ("native", "layer_norm", "primitives"):
        assert gn.compare(model, gn.lower(model, f"onnx+{form}").model).held
    other = write("native", GroupNormSpec(4, 8, 1e-3, rank=4), *affine(SPEC, "both"), ["N", 8, "H", "W"], 21)
    report = gn.compare(model, other)
    assert not report.held
    assert report.sites[0].status == "fail"


def test_export_is_verified_and_free_in_batch_and_size(tmp_path: Path) -> None:
    module = Block()
    exported = gn.export(module, (torch.randn(2, 3, 8, 8),), target="tensorrt", out=tmp_path / "m.onnx")
    assert exported.report is not None
    assert exported.report.held
    assert [d.wrote for d in exported.decisions] == ["native"]
    (site,) = gn.find(tmp_path / "m.onnx")
    assert (site.module, str(site.spec.activation)) == ("norm", "silu")
    assert site.source.startswith("test_api.py:")
    from gn_deploy.runtimes import RUNTIMES

    x = torch.randn(3, 3, 5, 11)
    y = next(iter(RUNTIMES.require("onnx-reference").open(tmp_path / "m.onnx").run({"x": x.numpy()}).values()))
    # float32, 27 products per output and a normalization over 110 values
    np.testing.assert_allclose(y, module(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_an_export_that_differs_from_its_module_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gn_deploy.exporters import torch as exporter

    def wrong(module: nn.Module, *arguments: object, **options: object) -> ir.Model:
        model = right(module, *arguments, **options)  # type: ignore[arg-type]
        for node in model.graph:
            if node.op_type == "InstanceNormalization":
                node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 0.5)
        return model

    right = exporter.export
    monkeypatch.setattr(exporter, "export", wrong)
    with pytest.raises(ParityError, match="does not compute what the module does"):
        gn.export(Block(), (torch.randn(2, 3, 8, 8),), out=tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_export_without_inputs_says_what_to_pass() -> None:
    with pytest.raises(InputError, match="example inputs"):
        gn.export(Block())


def test_build_refuses_what_tensorrt_would_compute_wrongly(tmp_path: Path) -> None:
    one = GroupNormSpec(1, 8, rank=4)
    path = tmp_path / "m.onnx"
    ir.save(write("native", one, *affine(one, "both"), [2, 8, 6, 6], 21), path)
    with pytest.raises(InputError, match="4756") as caught:
        gn.build(path, tmp_path / "m.engine")
    assert caught.value.hint == "lower for tensorrt-rtx first"
    gn.lower(path, "tensorrt-rtx", out=tmp_path / "right.onnx")
    built = gn.build(tmp_path / "right.onnx", tmp_path / "m.engine")
    assert built.path.stat().st_size == built.size > 0


def test_public_names_are_all_there() -> None:
    for name in gn.__all__:
        assert getattr(gn, name) is not None
    with pytest.raises(AttributeError):
        gn.nothing  # noqa: B018


@pytest.mark.parametrize("target", ["onnx", "tensorrt", "tensorrt@10.8", "onnx+primitives", "onnx+layer_norm"])
def test_lowering_twice_is_lowering_once(target: str, model: ir.Model, tmp_path: Path) -> None:
    paths = [tmp_path / f"{turn}.onnx" for turn in "abc"]
    gn.lower(model, target, out=paths[0], verify=False)
    for source, out in pairwise(paths):
        again = gn.lower(source, target, out=out)
        assert [(bool(d.decision), d.wrote) for d in again.decisions] == [(True, None)]
    assert paths[1].read_bytes() == paths[2].read_bytes()
    assert [n.op_type for n in onnx.load(paths[0]).graph.node] == [n.op_type for n in onnx.load(paths[2]).graph.node]
