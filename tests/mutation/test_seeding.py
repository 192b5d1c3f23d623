"""Every fault written as ONNX nodes computes what the table of faults says, where it is put and nowhere else."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from gn_deploy.decision import Rejected
from gn_deploy.errors import InputError
from gn_deploy.faults import FAULTS, Kind, applies
from gn_deploy.graph.provenance import module_path
from gn_deploy.mutation.seeding import SPELLINGS, seed
from gn_deploy.sites import find
from tests.mutation.regions import GOLDEN, given, golden, run, shapes
from tests.parity.spellings import RIGHT, alone, instance_norm, native, network, with_dynamic_scale

EXPORTS = (
    "dyn18__silu",
    "dyn21__ada_dynshape",  # modulation
    "dyn18__skip",  # residual
    "dyn21__nhwc_dynshape",
    "ts17__r3_basic",
    "ts17__gelu",
    "spec21__native_runtime_scale",
    "spec21__in_if",
    "contrib__GroupNorm_nhwc_act1",
)
ROUNDING = [name for name, fault in FAULTS.items() if fault.kind is Kind.PRECISION and name != "approximate root"]
"""Faults that rounding makes: float64 does not show them."""
EXACT = [name for name in FAULTS if name not in ROUNDING]
NONFINITE = {"NaN swallowed": np.nan, "Inf swallowed": np.inf}
CONSTANTS = 1e-7  # what a file rounds to float32: ten epsilons, the slip of an element, coefficients of activations


def same(model: ir.Model, other: ir.Model) -> bool:
    return ir.to_proto(model).SerializeToString() == ir.to_proto(other).SerializeToString()


def check(name: str, model: ir.Model, fault: str) -> bool:
    """Whether the fault can be seeded into the first site; in float64 it then computes what the table says."""
    site = find(model).sites[0]
    seeded = seed(model, site, fault)
    if isinstance(seeded, Rejected):
        assert seeded.reason
        return False
    met = False
    for shape in shapes(site):
        if applies(FAULTS[fault], site.spec, shape):
            fed = given(site, shape)
            fed.x.reshape(-1)[5] = NONFINITE.get(fault, fed.x.reshape(-1)[5])
            want = fed.answer(FAULTS[fault], site, "float64")
            got = run(seeded, site, fed, "onnx-reference", precision="float64")
            assert (np.isfinite(want) == np.isfinite(got)).all(), f"{fault} in {name}"
            ok = np.isfinite(want)
            assert np.abs(want - got)[ok].max() <= CONSTANTS * np.abs(want[ok]).max(), f"{fault} in {name} at {shape}"
            met = True
    return met


def test_every_fault_of_the_table_has_a_spelling() -> None:
    assert SPELLINGS.keys() == FAULTS.keys()


def test_each_fault_computes_in_float64_what_the_table_says() -> None:
    """In one export each, every time another one; the slow test takes all."""
    for i, fault in enumerate(EXACT):
        start = i % len(EXPORTS)
        assert any(check(name, golden(name)[0], fault) for name in EXPORTS[start:] + EXPORTS[:start]), fault


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDEN.glob("*.onnx")))
def test_each_fault_in_every_export(name: str) -> None:
    model, site = golden(name)
    if site.invalid or "float16" in (site.spec.dtype, site.spec.stash_dtype):
        pytest.skip(site.invalid or "its own constants are rounded to half precision")
    met = [check(name, model, fault) for fault in EXACT]
    assert any(met)


@pytest.mark.parametrize(
    ("fault", "runtime"),
    [*((fault, "onnxruntime") for fault in ROUNDING), ("stored in bfloat16", "openvino")],  # which drops pairs of Casts
)
def test_each_rounding_is_what_the_table_says(fault: str, runtime: str) -> None:
    """To the bit, but for TF32, which the runtime's own roundings follow."""
    model = alone(instance_norm())
    site = find(model).sites[0]
    seeded = seed(model, site, fault)
    assert isinstance(seeded, ir.Model)
    fed = given(site, shapes(site)[0], "float32", scale=300)  # squares that float16 holds
    want = fed.answer(FAULTS[fault], site, "float32")
    got = run(seeded, site, fed, runtime)
    moved = np.abs(want - fed.answer(FAULTS["NaN swallowed"], site, "float32")).max()  # which does nothing here
    assert moved > 1e-4
    off = np.abs(want - got)
    assert off.max() <= 1.1 * moved
    assert np.mean(off > 0.01 * moved) <= 0.01  # a sum between two numbers may be rounded the other way


@settings(max_examples=25, deadline=None)
@drawn(
    st.sampled_from([name for name in EXACT if name not in NONFINITE and FAULTS[name].kind is not Kind.RESIDUAL]),
    st.sampled_from(sorted(RIGHT)),
    st.integers(1, 3),
    st.sampled_from([(6, 6), (5, 7), (1, 9)]),
)
def test_in_any_form_and_size(fault: str, form: str, samples: int, size: tuple[int, int]) -> None:
    if form == "layer norm":  # its weight has the size of a group
        size = (6, 6)
    model = alone(RIGHT[form], shape=("N", 8, *size) if form == "layer norm" else ("N", 8, "H", "W"))
    site = find(model).sites[0]
    shape = (samples, 8, *size)
    seeded = seed(model, site, fault)
    if isinstance(seeded, Rejected) or not applies(FAULTS[fault], site.spec, shape):
        return
    fed = given(site, shape)
    want = fed.answer(FAULTS[fault], site, "float64")
    got = run(seeded, site, fed, "onnx-reference", precision="float64")
    assert np.abs(want - got).max() <= CONSTANTS * np.abs(want).max()


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_else_is_touched(fault: str) -> None:
    model = network(RIGHT["instance norm"])
    before = ir.to_proto(model).SerializeToString()
    first, site = find(model).sites
    seeded = seed(model, site, fault)
    assert ir.to_proto(model).SerializeToString() == before
    if isinstance(seeded, Rejected):
        return
    own = {node.name for node in site.nodes}
    rest = {n.name: n for n in model.graph if n.name not in own}
    there = {n.name: n for n in seeded.graph}
    for name, node in rest.items():
        for old, new in ((node.inputs, there[name].inputs), (node.outputs, there[name].outputs)):
            assert [v.name for v in new if v is not None] == [v.name for v in old if v is not None]
    assert [v.name for v in seeded.graph.outputs] == [v.name for v in model.graph.outputs]
    assert first.name in {s.name for s in find(seeded).sites}
    added = [n for n in seeded.graph if n.name not in rest and n.name not in own]
    assert {n.metadata_props["gn_deploy.form"] for n in added} == {f"fault: {fault}"}


def test_without_a_fault_nothing_changes() -> None:
    model = network(native())
    seeded = seed(model, find(model).sites[0], None)
    assert isinstance(seeded, ir.Model)
    assert same(seeded, model)
    assert seeded is not model


def test_the_modules_place_is_told_of_the_new_nodes() -> None:
    model, site = golden("dyn18__silu")
    seeded = seed(model, site, "unbiased variance")
    assert isinstance(seeded, ir.Model)
    added = [n for n in seeded.graph if n.metadata_props.get("gn_deploy.form") == "fault: unbiased variance"]
    assert {module_path(n) for n in added} == {site.module}


def test_scale_and_bias_known_at_run_time() -> None:
    model = with_dynamic_scale(alone(native()))
    met = [fault for fault in EXACT if FAULTS[fault].kind is Kind.AFFINE and check("run time", model, fault)]
    assert len(met) == 7  # all but the two about modulation


@pytest.mark.parametrize(
    ("export", "fault", "why"),
    [
        ("ts17__r3_basic", "activation missing", "it has no activation"),
        ("ts17__r3_basic", "residual dropped", "it has no residual"),
        ("ts17__r3_basic", "height and width swapped", "fewer than two spatial axes"),
        ("paddle11__pd_r4", "unbiased variance", "it needs opset 13, the model has 11"),
        ("ts17__gC", "twice the groups", "not divisible"),
        ("spec18__native_perchannel_INVALID", "bias dropped", "scale of 32 elements"),
        ("spec21__native_fp16_stash10", "approximate root", "lost in statistics taken in float16"),
    ],
)
def test_what_cannot_be_expressed_says_why(export: str, fault: str, why: str) -> None:
    seeded = seed(*golden(export), fault)
    assert isinstance(seeded, Rejected)
    assert why in seeded.reason


def test_a_name_that_no_fault_has() -> None:
    model = network(native())
    with pytest.raises(InputError, match="no fault is called 'bias droped'") as caught:
        seed(model, find(model).sites[0], "bias droped")
    assert "bias dropped" in str(caught.value.hint)
