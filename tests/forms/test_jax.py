"""GroupNorm as jax2onnx 0.17 writes it: equinox under vmap and alone, flax nnx and linen, jnp.mean and jnp.var."""

from pathlib import Path

import onnx
import pytest

import gn_deploy as gn
from gn_deploy.api import inspect

GOLDEN = Path(__file__).parents[1] / "golden" / "jax"


@pytest.mark.parametrize(
    ("file", "epsilon", "affine", "channel_axis", "activation"),
    [
        ("equinox_vmap_silu", 1e-5, True, 1, "silu"),
        ("equinox_unbatched", 1e-5, True, 1, "none"),
        ("nnx_silu", 1e-6, False, -1, "silu"),
        ("linen_gelu", 1e-6, False, -1, "gelu_tanh"),
        ("jnp_var", 1e-5, False, 1, "none"),
    ],
)
def test_found_written_and_held(file: str, epsilon: float, affine: bool, channel_axis: int, activation: str) -> None:
    path = GOLDEN / f"{file}.onnx"
    (site,) = gn.find(path)
    spec = site.spec
    assert (spec.num_groups, spec.num_channels, spec.epsilon, spec.channel_axis) == (8, 32, epsilon, channel_axis)
    assert spec.activation == activation
    assert (site.scale is not None, site.bias is not None) == (affine, affine)  # nnx and linen start as 1 and 0
    lowered = gn.lower(path, "onnx+native")
    assert [d.wrote for d in lowered.decisions] == ["native"]
    assert gn.compare(path, lowered.model).held


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"gn_group_min_axes_0": [2, 3, 4], "gn_group_max_axes_0": [2, 3, 4]}, [3, 4]),  # equal within one channel
        ({"gn_group_min_axes_0": [2, 3, 4]}, [1, 2, 3, 4]),
        ({"const_2": []}, 1.0),  # what is put there is not 0
    ],
)
def test_a_guard_that_does_more_than_guard_is_not_passed_over(old: dict[str, list[int]], new: object) -> None:
    import numpy as np

    model = onnx.load(GOLDEN / "equinox_vmap_silu.onnx")
    for tensor in model.graph.initializer:
        if tensor.name in old:
            held = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.asarray(new, held.dtype), tensor.name))
    found = inspect(model)
    assert not found.sites
    assert found.near_misses
