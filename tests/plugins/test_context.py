"""What a layer holds for one execution context, what it launches, and what it tells when that fails."""

import ctypes

from gn_deploy.plugin.binding import VARIANTS
from tests.plugins.layers import Layer, run
from tests.plugins.vtable import RUNTIME, Context, Sizes, call

SKIP = {"residual": 1, "sum": 1}
INVALID_ARGUMENT, FAILED_ALLOCATION, FAILED_EXECUTION = 3, 5, 7  # ErrorCode


def test_counters_are_made_once_for_a_context_and_given_back(host) -> None:
    layer = Layer((2, 8, 64, 64))
    made, held = host.allocations()
    plugin = layer.create(host)
    copy = plugin.clone()
    assert host.allocations() == (made, held)
    contexts = [plugin.attach(Context()) for _ in range(2)]
    assert host.allocations() == (made + 2, held + 2)
    used = set()
    for attached in contexts:
        for tactic in (0, VARIANTS.index("team") + 1):
            assert attached.set_tactic(tactic) == 0
            assert attached.on_shape_change(*layer.tensors()) == 0
            assert run(attached, layer) == 0
        used.add(host.launch()[3].counters)
    assert host.allocations() == (made + 2, held + 2)
    assert len(used) == 2
    for one in (*contexts, copy, plugin):
        one.close()
    assert host.allocations() == (made + 2, held)


def test_a_plugin_that_was_not_attached_makes_its_counters_when_it_needs_them(host) -> None:
    layer = Layer((2, 8, 64, 64))
    plugin = layer.create(host)
    made, held = host.allocations()
    assert plugin.set_tactic(VARIANTS.index("split") + 1) == 0
    assert plugin.on_shape_change(*layer.tensors()) == 0
    assert host.allocations() == (made, held)
    assert plugin.set_tactic(VARIANTS.index("team") + 1) == 0
    assert plugin.on_shape_change(*layer.tensors()) == 0
    assert host.allocations() == (made + 1, held + 1)
    plugin.close()
    assert host.allocations() == (made + 1, held)


def test_no_memory_for_the_counters_is_told(host, capfd) -> None:
    host.refuse_memory(True)
    layer = Layer((2, 8, 64, 64))
    plugin = layer.create(host)
    context = Context()
    made = call(plugin.runtime, RUNTIME["attachToContext"], ctypes.c_void_p, ctypes.addressof(context.object))
    assert made is None
    assert context.errors == [(FAILED_ALLOCATION, "no memory for the counters: refused by the test")]
    assert "no memory for the counters" in capfd.readouterr().err
    plugin.close()


def test_a_launch_that_fails_gives_its_status_and_its_words(host) -> None:
    layer = Layer((2, 8, 5, 5))
    plugin = layer.create(host)
    context = Context()
    attached = plugin.attach(context)
    for status, code in ((3, INVALID_ARGUMENT), (4, FAILED_EXECUTION)):
        host.refuse_launches(status)
        assert run(attached, layer) == status
        assert context.errors.pop() == (code, "refused by the test")
    host.refuse_launches(0)
    assert run(attached, layer) == 0
    attached.close()
    plugin.close()


def test_other_sizes_are_seen_though_nobody_told(host) -> None:
    layer, other = Layer((2, 8, 5, 5)), Layer((1, 8, 64, 64))
    plugin = layer.create(host)
    assert plugin.on_shape_change(*layer.tensors()) == 0
    for now in (layer, other, layer):
        assert run(plugin, now) == 0
        assert host.launch()[1].positions == now.shape[2] * now.shape[3]
    plugin.close()


def test_only_the_sum_shares_memory_with_the_residual(host) -> None:
    skip, plain = Layer((2, 8, 5, 5), SKIP).create(host), Layer((2, 8, 5, 5), {"residual": 1}).create(host)
    assert [skip.number("getAliasedInput", ctypes.c_int32(output)) for output in (0, 1)] == [-1, 3]
    assert plain.number("getAliasedInput", ctypes.c_int32(0)) == -1
    skip.close()
    plain.close()


def test_nothing_at_all_is_told_and_survived(host, capfd) -> None:
    """Null pointers from a host that is wrong about the layer."""
    plugin = Layer((2, 8, 5, 5)).create(host)
    assert plugin.on_shape_change([], []) != 0
    assert plugin.configure([], []) != 0
    assert plugin.workspace([], []) == 0
    assert plugin.output_shapes(Sizes(), [], 1) != 0
    assert plugin.enqueue([], [], [], []) != 0
    assert capfd.readouterr().err.count("no tensors given") >= 4
    plugin.close()
