"""A layer's whole life in TensorRT: created and configured, kept in an engine, made again, attached, and run."""

from collections.abc import Sequence

import numpy as np

from tests.plugins.adapter import Host
from tests.plugins.layers import NUMPY, Array, packed, unpacked
from tests.plugins.vtable import Context, Field, Format, Sizes, TensorDesc, Type, fixed

PATTERN = 0xA5  # of memory that nobody has written


def aligned(size: int) -> Array:
    """Bytes of PATTERN whose address is a multiple of 256, as CUDA's are."""
    raw = np.full(size + 256, PATTERN, np.uint8)
    begin = -raw.ctypes.data % 256
    return raw[begin : begin + size]


def in_memory(values: Array) -> Array:
    memory = aligned(values.nbytes)
    memory[:] = np.ascontiguousarray(values).reshape(-1).view(np.uint8) if values.size else []
    return memory


def execute(
    host: Host,
    name: str,
    fields: Sequence[Field],
    ins: Sequence[TensorDesc],
    outs: Sequence[TensorDesc],
    inputs: Sequence[Array],
    *,
    tactic: int = 0,
    in_place: bool = False,
) -> tuple[list[Array], int]:
    """The outputs for ``inputs``, and how many tactics there are; ``tactic`` 0 is the default, others go round.

    ``in_place`` gives the second output the memory of the fourth input.
    """
    shape = tuple(ins[0].dims.d[: ins[0].dims.rank])
    given = [
        in_memory(packed(values, Format(desc.format)) if desc.format != Format.LINEAR else values)
        for values, desc in zip(inputs, ins, strict=True)
    ]
    made = [aligned(packed(np.zeros(shape, NUMPY[Type(desc.type)]), Format(desc.format)).nbytes) for desc in outs]
    if in_place:
        made[1] = given[3]

    plugin = host.creators[name].create(fields)
    assert plugin is not None
    sizes = Sizes()
    shapes = plugin.output_shapes(sizes, [sizes.shape(tuple(d.dims.d[: d.dims.rank])) for d in ins], len(outs))
    assert isinstance(shapes, list)
    assert plugin.output_types([Type(d.type) for d in ins], len(outs)) == [Type(d.type) for d in outs]
    assert all(plugin.supports(i, [*ins, *outs]) for i in range(len(ins) + len(outs)))
    described = [[fixed(t) for t in tensors] for tensors in (ins, outs)]
    assert plugin.configure(*described) == 0
    tactics = plugin.tactics()
    workspace = aligned(plugin.workspace(*described))
    kept = host.creators[name].create(plugin.serialized_collection(), runtime=True)
    assert kept is not None
    plugin.close()

    context = Context()
    attached = kept.attach(context)
    assert attached.set_tactic(tactic and tactics[(tactic - 1) % len(tactics)]) == 0
    assert attached.on_shape_change(ins, outs) == 0
    addresses = [[memory.ctypes.data for memory in memories] for memories in (given, made)]
    for _ in range(1 if in_place else 2):  # the second launch finds the counters as the first left them
        if not in_place:
            for memory in made:
                memory[:] = PATTERN
        assert attached.enqueue(ins, outs, *addresses, workspace.ctypes.data) == 0, context.errors
    attached.close()
    kept.close()
    found = [
        unpacked(memory.view(NUMPY[Type(desc.type)]), shape, Format(desc.format))
        for memory, desc in zip(made, outs, strict=True)
    ]
    return found, len(tactics)
