"""The proof that a rewrite kept the meaning: every right pair accepted, every fault noticed, quickly."""

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from gn_deploy.forms.base import GroupNormSite
from gn_deploy.parity.rewrite import check
from gn_deploy.sites import find
from tests.parity.spellings import CHANNELS, ONE_PASS, RIGHT, WRONG, Graph, Spelling, alone, native, with_dynamic_scale

SHAPES = [("N", CHANNELS, 6, 6), (2, CHANNELS, 6, 6), (1, CHANNELS, 6, 6)]


def _site(model: ir.Model) -> GroupNormSite:
    (site,) = find(model).sites
    return site


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("before", [*RIGHT, "one-pass"])
@pytest.mark.parametrize("after", RIGHT)
def test_right_rewrites_are_accepted(before: str, after: str, shape: tuple[int | str, ...]) -> None:
    was = alone(ONE_PASS if before == "one-pass" else RIGHT[before], shape=shape)
    decision = check(_site(was), was, alone(RIGHT[after], shape=shape))
    assert decision, decision.reason


def _batch_mixed(g: Graph, x: str, y: str) -> None:
    """Statistics over the whole batch: right for one sample."""
    first = g.add("Transpose", [x], perm=[1, 0, 2, 3])
    flat = g.add("Reshape", [first, g.constant(np.array([1, 4, -1]))])
    z = g.add("InstanceNormalization", [flat, g.constant(np.ones(4, "f")), g.constant(np.zeros(4, "f"))])
    g.affine(g.add("Transpose", [g.add("Reshape", [z, g.add("Shape", [first])])], perm=[1, 0, 2, 3]), y)


def _per_group_affine() -> Spelling:
    from tests.parity.spellings import BIAS, SCALE

    return native(scale=np.repeat(SCALE[::2], 2), bias=np.repeat(BIAS[::2], 2))


FAULTS = WRONG | {
    "batch mixed": _batch_mixed,
    "affine per group": _per_group_affine(),
    "one-pass": ONE_PASS,
    "epsilon off by a millionth": native(epsilon=1e-5 * (1 + 2e-6)),
}


@pytest.mark.parametrize("shape", SHAPES[:2])
@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_noticed(name: str, shape: tuple[int | str, ...]) -> None:
    was = alone(native(), shape=shape)
    decision = check(_site(was), was, alone(FAULTS[name], shape=shape))
    assert not decision
    assert "written" in decision.reason


def test_a_site_misread_is_noticed() -> None:
    was = alone(native())
    site = _site(was)
    wrong = replace(site, spec=replace(site.spec, epsilon=1e-6))
    assert "the nodes found" in check(wrong, was, was).reason


def test_a_shape_frozen_into_the_graph_is_noticed() -> None:
    def frozen(g: Graph, x: str, y: str) -> None:
        batch = g.add("Reshape", [x, g.constant(np.array([2, 4, -1]))])
        z = g.add("InstanceNormalization", [batch, g.constant(np.ones(4, "f")), g.constant(np.zeros(4, "f"))])
        g.affine(g.add("Reshape", [z, g.add("Shape", [x])]), y)

    was = alone(native())
    assert not check(_site(was), was, alone(frozen))


def test_parameters_known_at_run_time() -> None:
    was = with_dynamic_scale(alone(native()))
    assert check(_site(was), was, with_dynamic_scale(alone(native())))
    assert not check(_site(was), was, with_dynamic_scale(alone(native()), wrong=True))


def test_half_precision_inside_is_no_false_alarm() -> None:
    def cast(g: Graph, x: str, y: str) -> None:
        half = g.add("Cast", [x], to=10)
        back = g.add("Cast", [half], to=1)
        native()(g, back, y)

    was = alone(native())
    assert check(_site(was), was, alone(cast))
