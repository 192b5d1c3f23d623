"""Finding the counterpart of every site: by names, whole graph, module, order; and never by a coincidence."""

from typing import Any

import onnx_ir as ir
import pytest

from gn_deploy.parity.pairing import Pairing, pair
from gn_deploy.sites import find
from gn_deploy.spec import Activation
from tests.parity.spellings import BIAS, GROUPS, RIGHT, SCALE, WRONG, Spelling, alone, native, network, permuted


def _pair(a: ir.Model, b: ir.Model) -> Pairing:
    return pair(a, find(a).sites, b, find(b).sites)


def _how(pairing: Pairing) -> list[str]:
    return [p.how for p in pairing.pairs]


@pytest.mark.parametrize("name", [*RIGHT, *WRONG])
def test_by_names_whether_recognised_or_not(name: str) -> None:
    pairing = _pair(network(native()), network((RIGHT | WRONG)[name]))
    assert _how(pairing) == ["value names", "value names"]
    assert not pairing.unpaired


def test_an_unrecognised_region_says_so() -> None:
    pairing = _pair(network(native()), network(permuted))
    assert pairing.pairs[0].form == ""
    assert pairing.pairs[1].form == "native"


def test_whole_graph() -> None:
    assert _how(_pair(alone(native()), alone(permuted, names=("in", "out")))) == ["graph input and output"]


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (native(), ""),
        (native(epsilon=1e-3), "epsilon is 0.001, the reference has 1e-05"),
        (native(groups=GROUPS // 2), f"num_groups is {GROUPS // 2}, the reference has {GROUPS}"),
        (native(scale=SCALE[::-1].copy()), "scale holds other numbers"),
        (native(epsilon=1e-3, bias=BIAS + 1), "epsilon is 0.001, the reference has 1e-05 and bias holds other numbers"),
    ],
)
@pytest.mark.parametrize("model", [alone, network])
def test_what_differs_is_told_as_far_as_it_is_known(model: Any, other: Spelling, told: str) -> None:
    assert {p.differs for p in _pair(model(native()), model(other)).pairs} == {told}


def test_by_order_only_when_all_agree() -> None:
    assert _how(_pair(network(native()), network(RIGHT["layer norm"], prefix="b_"))) == ["order", "order"]
    pairing = _pair(network(native()), network(WRONG["unbiased variance"], prefix="b_"))
    assert not pairing.pairs
    assert "0 other GroupNorm(s) for 2 left over" in pairing.unpaired[0][1]


def test_by_module_before_order() -> None:
    a, b = network(native()), network(native(), prefix="b_")
    for model, paths in ((a, ("one", "two")), (b, ("two", "one"))):
        norms = [n for n in model.graph if n.op_type == "GroupNormalization"]
        for node, path in zip(norms, paths, strict=True):
            node.metadata_props["pkg.torch.onnx.name_scopes"] = str(["", path, "group_norm"])
    pairing = _pair(a, b)
    assert _how(pairing) == ["module path", "module path"]
    assert [p.output.name for p in pairing.pairs] == ["b_norm2", "b_norm1"]


def test_names_across_a_convolution_are_a_coincidence() -> None:
    a, b = network(native()), network(WRONG["unbiased variance"], prefix="b_")
    for old, new in (("x", "conv1"), ("b_norm1", "norm1")):
        values = [*b.graph.inputs, *(v for node in b.graph for v in node.outputs)]
        next(v for v in values if v.name == old).name = new
    assert not _pair(a, b).pairs


def test_the_activation_is_judged_too_where_the_names_tell_it() -> None:
    a, b = network(native()), network(RIGHT["instance norm"], activation="Sigmoid")
    pairing = pair(a, find(a).sites, b, find(b).sites)
    first = pairing.pairs[0]
    assert first.spec.activation is Activation.RELU
    assert first.output.name == "act1"
    assert first.differs == "no relu is recognised around it"
    (first, _) = pair(a, find(a).sites, *_other_names("Sigmoid")).pairs
    assert first.spec.activation is Activation.NONE
    assert first.output.name == "b_norm1"


def _other_names(activation: str) -> tuple[Any, Any]:
    model = network(RIGHT["instance norm"], activation=activation, prefix="b_")
    return model, find(model).sites
