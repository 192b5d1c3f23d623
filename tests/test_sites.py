"""Golden files of real exporters: every Group Normalization is found as what it is, every look-alike is left alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import gn_deploy as gn
from gn_deploy.errors import InputError
from tests.forms.writing import WRITTEN

GOLDEN = Path(__file__).parent / "golden" / "exporters"
TRUTH: list[dict[str, Any]] = json.loads((GOLDEN / "truth.json").read_text())
INVALID = {e["file"] for e in TRUTH if "invalid" in e["tags"]} | {"spec18__onnxvc21_dynshape.onnx"}
EPSILON = {"paddle11__pd_r4.onnx": 1.8090043e-29}  # paddle2onnx wrote garbage or 0: we report what the file computes
EPSILON |= {f"paddle17__pd_{name}.onnx": 0.0 for name in ("g1", "noaff", "r4", "silu")}


@pytest.mark.parametrize("entry", TRUTH, ids=[e["file"].removesuffix(".onnx") for e in TRUTH])
def test_find_tells_the_truth(entry: dict[str, Any]) -> None:
    sites = gn.find(GOLDEN / entry["file"])
    assert len(sites) == entry["n_gn"]
    for site in sites:
        assert (site.spec.num_groups, site.spec.num_channels) == (entry["groups"], entry["channels"])
        assert site.spec.rank == entry["rank"]
        assert site.spec.dtype == entry["dtype"]
        half = 2**-25 if entry["dtype"] == "float16" else 0.0  # 1e-5 is subnormal in float16: half of 2^-24
        assert site.spec.epsilon == pytest.approx(EPSILON.get(entry["file"], entry["eps"]), rel=1e-7, abs=half)
        if entry["affine"] == "none" or entry["pattern"] == "affine_on_hw":
            assert site.scale is None
            assert site.bias is None
        else:
            assert site.scale is not None
            assert site.bias is not None


@pytest.mark.parametrize("tag", ["relu", "silu"])
def test_activation_is_part_of_the_spec(tag: str) -> None:
    files = [e["file"] for e in TRUTH if f"act:{tag}" in e["tags"]]
    assert files
    for file in files:
        sites = gn.find(GOLDEN / file)
        expected = "none" if "siluplus" in file else tag
        assert {str(s.spec.activation) for s in sites} <= {expected, tag}, file


def test_a_gate_is_not_an_activation() -> None:
    for file in ("ts17__trap_segate.onnx", "dyn21__trap_segate.onnx"):
        assert [str(s.spec.activation) for s in gn.find(GOLDEN / file)] == ["none"]


@pytest.mark.parametrize("part", [3, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
@pytest.mark.parametrize("form", [form for form in WRITTEN if form != "native18"])  # which has no checker
def test_every_file_lowers_proved_checked_and_idempotent(form: str, part: int, tmp_path: Path) -> None:
    """Verified by the float64 oracle inside; here: the checker, the form found again, nothing to do the second time.

    By default one file in three in each form, others in the next form.
    """
    target = f"onnx+{form}"
    written = 0
    for entry in TRUTH[WRITTEN.index(form) % part :: part]:
        if not entry["n_gn"] or entry["file"] in INVALID:
            continue
        before = (GOLDEN / entry["file"]).read_bytes()
        lowered = gn.lower(GOLDEN / entry["file"], target)
        assert (GOLDEN / entry["file"]).read_bytes() == before
        for decision in lowered.decisions:
            assert "not proved" not in decision.decision.reason, (entry["file"], decision)
        wrote = [d.wrote for d in lowered.decisions]
        written += sum(w is not None for w in wrote)
        onnx.checker.check_model(ir.to_proto(lowered.model), full_check=True)
        if any(wrote):
            assert {s.form for s in gn.find(lowered.model)} == {form}, entry["file"]
        again = gn.lower(lowered.model, target)
        assert not any(d.wrote for d in again.decisions), entry["file"]
    assert written > 40 // part


@pytest.mark.slow
def test_of_the_node_tests_of_onnx_only_group_normalization_is_found() -> None:
    from onnx.backend.test.case.node import collect_testcases

    kinds = ("group_normalization", "instancenorm", "layer_normalization", "batchnorm", "mvn", "lpnormalization")
    with np.errstate(all="ignore"):
        cases = {t.name: t.model for t in collect_testcases(None) if any(k in t.name for k in kinds)}
    assert len(cases) > 60
    found = {name: gn.find(model) for name, model in cases.items()}
    assert {name.removeprefix("test_group_normalization_") for name, sites in found.items() if sites} == {
        "example",
        "example_expanded",
        "epsilon",
        "epsilon_expanded",
    }


def test_look_alikes_are_left_as_they_are() -> None:
    for entry in TRUTH:
        if entry["n_gn"]:
            continue
        source = onnx.load(GOLDEN / entry["file"])
        lowered = gn.lower(source, "onnx+native")
        assert not lowered.decisions
        ops = [n.op_type for n in source.graph.node if n.op_type != "Constant"]
        assert [n.op_type for n in lowered.model.graph] == ops, entry["file"]


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("ts17__neg_epsout.onnx", "outside the root"),
        ("ts17__neg_interleave.onnx", "not its last axes"),
        ("dyn18__neg_in.onnx", "32 channels of 'x0' are not divisible by 64"),
        ("adv__batch_merged.onnx", "mixes samples"),
        ("ts17__neg_shapechg.onnx", "does not come back to the shape"),
        ("ts17__neg_unbiased.onnx", "unbiased"),
    ],
)
def test_near_misses_say_what_stopped_them(file: str, reason: str) -> None:
    from gn_deploy.api import inspect

    assert any(reason in miss.reason for miss in inspect(GOLDEN / file).near_misses)


@pytest.mark.parametrize("file", sorted(INVALID))
def test_parameters_of_the_wrong_kind_are_shown_but_not_lowered(file: str) -> None:
    (site,) = gn.find(GOLDEN / file)
    assert "were needed" in site.invalid
    with pytest.raises(InputError, match="were needed"):
        gn.lower(GOLDEN / file, "onnx+layer_norm")


def test_exporters_names_and_lines_are_told() -> None:
    (site,) = gn.find(GOLDEN / "dyn21__block.onnx")
    assert (site.module, site.source.partition(":")[0]) == ("n", "gen_torch.py")
    assert np.isfinite(site.spec.epsilon)
